"""Imports point down, the pure layer is pure, and the core does without what only faces need."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import fal_async

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(fal_async.__file__).parent
#: From the bottom up. `roof` is the package itself, whose names load when first used.
LAYERS = ["values", "protocol", "transport", "client", "functions", "roof", "faces"]
#: The first name that fits decides. Every other private module is the client's.
PLACES = {
    "fal_async.errors": "values",
    "fal_async.types": "values",
    "fal_async._annotations": "values",
    "fal_async._checks": "values",
    "fal_async._config": "values",
    "fal_async._references": "values",
    "fal_async._secret": "values",
    "fal_async._version": "values",
    "fal_async._workflows": "values",
    "fal_async._protocol": "protocol",
    "fal_async._transport": "transport",
    "fal_async._default": "functions",
    "fal_async._functions": "functions",
    "fal_async._portal": "faces",
    "fal_async._loop_thread": "faces",
    "fal_async._errand": "faces",
    "fal_async._face": "faces",
    "fal_async._file_face": "faces",
    "fal_async._sync_files": "faces",
    "fal_async._sync_results": "faces",
    "fal_async.auth": "faces",
    "fal_async.client": "faces",
    "fal_async._shared": "functions",
    "fal_async.sync": "faces",
    "fal_async.cli": "faces",
    "fal_async.__main__": "faces",
    "fal_async.emulator": "faces",
    "fal_async.testing": "faces",
    "fal_async.webhooks": "faces",
    "fal_async.proxy": "faces",
}
#: Imports within a function, or for types alone, that point up, and why.
EXCEPTIONS = {
    ("fal_async._handle", "fal_async._default"): (
        "a handle that was pickled has no client until it is used, and then takes the default one"
    ),
    ("fal_async._files", "fal_async._default"): "a file that was pickled is like such a handle",
    ("fal_async.types", "fal_async._files"): "a result finds its files, which are no plain values",
}
#: Modules with models of their own; they are themselves imported where they are used.
WITH_PYDANTIC = {"fal_async._files", "fal_async._file_face"}
IMPURE = {
    "anyio",
    "asyncio",
    "httpx",
    "random",
    "select",
    "socket",
    "ssl",
    "threading",
    "time",
    "trio",
    "websockets",
}
PURE_ALL_THE_SAME = {
    ("fal_async.errors", "httpx"): "an error gives httpx's form of its response, a plain value"
}
FOR_FACES_ALONE = {
    "PIL",
    "asyncio",
    "cryptography",
    "rich",
    "starlette",
    "trio",
    "typer",
    "uvicorn",
}
#: The one module of the core that imports event loops, within functions.
WITH_LOOPS = "fal_async._transport.background"


@dataclass(frozen=True)
class Import:
    """One module that another one imports; `deferred` within a function or for types alone."""

    importer: str
    line: int
    imported: str
    in_function: bool
    for_types: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


@cache
def modules() -> dict[str, Path]:
    return {
        ".".join(["fal_async", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
            ".__init__"
        ): path
        for path in sorted(ROOT.rglob("*.py"))
    }


def layer_of(module: str) -> int:
    if module == "fal_async":
        return LAYERS.index("roof")
    for place, layer in PLACES.items():
        if module == place or module.startswith(f"{place}."):
            return LAYERS.index(layer)
    assert module.startswith("fal_async._"), f"{module} is public: give it a place in PLACES"
    return LAYERS.index("client")


def imports_of(module: str, source: str) -> Iterator[Import]:
    def visit(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        for name in names_of(module, node):
            yield Import(module, getattr(node, "lineno", 0), name, in_function, for_types)
        inside = in_function or isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        )
        typing = for_types or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside, typing)

    yield from visit(ast.parse(source), False, False)


def names_of(module: str, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{module}:{node.lineno} imports relatively"
        package = node.module or ""
        for alias in node.names:  # `from package import module` is about the module
            name = f"{package}.{alias.name}"
            yield name if name in modules() else package


@cache
def imports() -> list[Import]:
    return [
        found
        for module, path in modules().items()
        for found in imports_of(module, path.read_text())
    ]


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "fal_async"


def is_excused(found: Import) -> bool:
    late = found.in_function or found.for_types
    return late and (found.importer, found.imported) in EXCEPTIONS


def in_core(module: str) -> bool:
    return layer_of(module) < LAYERS.index("faces")


def test_the_walk_sees_every_kind_of_import() -> None:
    source = """
import anyio.lowlevel
from fal_async import errors, run
from fal_async._protocol import sse
if TYPE_CHECKING:
    from httpx import URL
def late():
    if True:
        import pydantic
class Holder:
    import json
"""
    found = [(x.imported, x.in_function, x.for_types) for x in imports_of("fal_async._x", source)]
    assert found == [
        ("anyio.lowlevel", False, False),
        ("fal_async.errors", False, False),
        ("fal_async", False, False),
        ("fal_async._protocol.sse", False, False),
        ("httpx", False, True),
        ("pydantic", True, False),
        ("json", False, False),
    ]


def test_every_place_is_of_a_layer() -> None:
    assert set(PLACES.values()) <= set(LAYERS)
    assert [LAYERS[layer_of(module)] for module in ("fal_async", "fal_async._client")] == [
        "roof",
        "client",
    ]
    assert len({layer_of(module) for module in modules()}) == len(LAYERS)


def test_imports_point_down() -> None:
    wrong = [
        str(found)
        for found in imports()
        if is_ours(found.imported)
        and layer_of(found.importer) < layer_of(found.imported)
        and not is_excused(found)
    ]
    assert wrong == []


def test_every_exception_is_still_needed() -> None:
    used = {(found.importer, found.imported) for found in imports() if is_excused(found)}
    assert used == set(EXCEPTIONS)


def test_the_pure_layer_is_pure() -> None:
    wrong = [
        str(found)
        for found in imports()
        if LAYERS[layer_of(found.importer)] in {"values", "protocol"}
        and found.imported.partition(".")[0] in IMPURE
        and (found.importer, found.imported) not in PURE_ALL_THE_SAME
    ]
    assert wrong == []


def test_the_core_imports_nothing_that_only_faces_need() -> None:
    wrong = [
        str(found)
        for found in imports()
        if in_core(found.importer)
        and found.imported.partition(".")[0] in FOR_FACES_ALONE
        and not (found.importer == WITH_LOOPS and (found.in_function or found.for_types))
    ]
    assert wrong == []


def test_pydantic_is_imported_where_it_is_used_and_not_before() -> None:
    wrong = [
        str(found)
        for found in imports()
        if in_core(found.importer)
        and found.imported.partition(".")[0] == "pydantic"
        and not (found.in_function or found.for_types or found.importer in WITH_PYDANTIC)
    ]
    assert wrong == []
