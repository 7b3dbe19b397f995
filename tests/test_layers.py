"""The architecture: which package may import which, and what each may use."""

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

#: From the bottom up. A package may import itself and those before it.
ORDER = [
    "values",
    "_protocol",
    "_net",
    "_http",
    "_websocket",
    "_auth",
    "_dispatch",
    "_files",
    "_platform",
    "_client",
    "batch",
    "client",
    "fal_async",
    "stores",
    "webhooks",
    "proxy",
    "sync",
    "cli",
    "pytest_plugin",
    "telemetry",
]
#: Modules that are in another layer than their package, or in no package.
MODULES = {
    "_version": "values",
    "errors": "values",
    "types": "values",
    "_config": "values",
    "_core": "values",
    "_client.client": "client",  # the client has the calls of jobs and of batches
    "_client.default": "client",
    "_client.functions": "client",
    "batch.engine": "fal_async",  # makes clients
    "hooks": "values",
    "client": "sync",  # the names of the official client's modules, the blocking ones included
    "auth": "sync",
    "__main__": "cli",
}
#: The only import that points up, inside a function.
UP = ("fal_async._dispatch.binding", "fal_async._client.default")
#: A second implementation of the protocol shares values and endpoint ids with the client.
EMULATOR_MAY_IMPORT = {
    "fal_async._config",
    "fal_async._core.annotations",
    "fal_async._protocol.endpoint",
    "fal_async._version",
    "fal_async.errors",
    "fal_async.types",
}
#: The only impure package that a value may be made of: `FalClientHTTPError.response` is a response
#: of httpx, built without input or output when it is first read.
VALUE_OF = ("fal_async._core.http_errors", "httpx")
#: Input, output, clocks and randomness, which pure code is given as arguments.
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
#: Dependencies of extras.
OPTIONAL = {
    "PIL",
    "cryptography",
    "opentelemetry",
    "psycopg",
    "rich",
    "starlette",
    "typer",
    "uvicorn",
}


@dataclass(frozen=True)
class Import:
    """One import of a module by another."""

    importer: str
    line: int
    imported: str
    in_function: bool
    for_types: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


@cache
def modules() -> dict[str, Path]:
    """Return the package's modules by name."""
    found: dict[str, Path] = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def package_of(module: str) -> str:
    """Return the package of a module, as `ORDER` and `MODULES` name it."""
    _, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return MODULES.get(rest) or MODULES.get(name, name) or "fal_async"


def imports_of(module: str, source: str) -> Iterator[Import]:
    """Find all imports of a module: those in functions and for types included."""

    def visit(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        for name in imported_names(module, node):
            yield Import(module, getattr(node, "lineno", 0), name, in_function, for_types)
        inside = in_function or isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        )
        typing = for_types or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside, typing)

    yield from visit(ast.parse(source), False, False)


def imported_names(module: str, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{module}:{node.lineno} imports relatively"
        package = node.module or ""
        for alias in node.names:  # `from package import module` imports the module
            name = f"{package}.{alias.name}"
            yield name if name in modules() else package
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        # A name that is put together at run time is not known here.
        yield from (str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant))


@cache
def imports() -> list[Import]:
    return [
        found
        for module, path in modules().items()
        for found in imports_of(module, path.read_text("utf-8"))
    ]


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "fal_async"


def test_walk_sees_every_kind_of_import() -> None:
    source = """
import anyio.lowlevel
from fal_async import errors, run
from fal_async._protocol import sse
if TYPE_CHECKING:
    from httpx import URL
def late():
    if True:
        import pydantic
    importlib.import_module("fal_async.types")
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
        ("fal_async.types", True, False),
        ("json", False, False),
    ]


def test_every_module_is_in_a_package() -> None:
    assert {package_of(module) for module in modules()} == {*ORDER, "emulator"}


def test_imports_follow_the_order() -> None:
    wrong = [
        str(found)
        for found in imports()
        if is_ours(found.imported)
        and "emulator" not in {package_of(found.importer), package_of(found.imported)}
        and ORDER.index(package_of(found.importer)) < ORDER.index(package_of(found.imported))
        and (found.importer, found.imported) != UP
    ]
    assert wrong == []


def test_one_import_points_up() -> None:
    (found,) = [x for x in imports() if (x.importer, x.imported) == UP and not x.for_types]
    assert found.in_function


def test_emulator_shares_values_alone() -> None:
    wrong = [
        str(found)
        for found in imports()
        if is_ours(found.imported)
        and package_of(found.importer) == "emulator"
        and package_of(found.imported) != "emulator"
        and found.imported not in EMULATOR_MAY_IMPORT
    ]
    assert wrong == []
    users = {x.importer for x in imports() if package_of(x.imported) == "emulator"}
    assert {package_of(user) for user in users} <= {"emulator", "cli", "pytest_plugin"}


def test_imports_form_no_circle() -> None:
    arrows = {
        module: {x.imported for x in imports() if x.importer == module} for module in modules()
    }
    arrows["fal_async._dispatch.binding"].discard(UP[1])
    left = {module: targets & arrows.keys() - {module} for module, targets in arrows.items()}
    while leaves := [module for module, targets in left.items() if not targets & left.keys()]:
        for leaf in leaves:
            del left[leaf]
    assert sorted(left) == []


def test_protocol_and_values_are_pure() -> None:
    wrong = [
        str(found)
        for found in imports()
        if package_of(found.importer) in {"values", "_protocol"}
        and not found.for_types
        and found.imported.partition(".")[0] in IMPURE
        and (found.importer, found.imported) != VALUE_OF
    ]
    assert wrong == []


def test_net_knows_nothing_of_the_platform() -> None:
    users = [str(x) for x in imports() if package_of(x.importer) == "_net"]
    assert not [text for text in users if "fal_async._protocol" in text]


def test_core_imports_no_optional_dependency() -> None:
    core = set(ORDER[: ORDER.index("cli")])
    wrong = [
        str(found)
        for found in imports()
        if package_of(found.importer) in core
        and found.imported.partition(".")[0] in OPTIONAL
        and not (found.in_function or found.for_types)
    ]
    assert wrong == []


def test_late_imports_have_a_reason() -> None:
    wrong = []
    for found in imports():
        if found.in_function and package_of(found.importer) != "cli":
            lines = modules()[found.importer].read_text("utf-8").splitlines()
            near = lines[max(0, found.line - 3) : found.line + 1]
            if not any("#" in line or '"""' in line for line in near):
                wrong.append(str(found))
    assert wrong == []
