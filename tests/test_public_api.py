"""What the package shows: complete, in order, importable, documented, and cheap to import."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import pickletools
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fal_async
from fal_async import _config, errors, types
from fal_async._client import functions
from tests.support import public_api
from tests.support.http import echo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from fal_async.emulator import Emulator

ROOT = Path(fal_async.__file__).parent
CHANGELOG = ROOT.parent / "CHANGELOG.md"
#: What values must not cost.
LATE = ["anyio", "httpx", "orjson", "pydantic", "websockets"]
#: What a first call must not cost: what most calls, or calls with a key, do without.
NOT_FOR_FIRST_CALL = [
    "certifi",
    "email",
    "fal_async._auth.login",
    "fal_async._client.connector",
    "fal_async._files.attachment_uploads",
    "fal_async._files.downloads",
    "fal_async._files.encode",
    "fal_async._files.sources",
    "fal_async._files.uploads",
    "fal_async._net.files",
    "fal_async._platform.models",
    "fal_async._protocol.downloads",
    "fal_async._protocol.uploads",
    "fal_async.batch.batch",
    "fal_async.hooks",
    "httpx",
    "mimetypes",
    "ormsgpack",
    "pydantic",
    "sqlite3",
    "tempfile",
    "websockets",
]
#: The same of an async call; the blocking client wraps the classes of these modules.
NOT_FOR_FIRST_ASYNC_CALL = [
    "fal_async._client.http_over_websocket",
    "fal_async._client.sessions",
    "fal_async._protocol.realtime",
]
FIRST_CALLS = {
    "async": """
import asyncio, fal_async
async def main():
    async with fal_async.AsyncClient({key!r}, hosts={url!r}) as client:
        await client.run("demo/echo", {{"prompt": "a cat"}})
asyncio.run(main())
""",
    "blocking": """
import fal_async.sync
with fal_async.sync.SyncClient({key!r}, hosts={url!r}) as client:
    client.run("demo/echo", {{"prompt": "a cat"}})
""",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_names() -> list[str]:
    return [
        ".".join(["fal_async", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        for path in sorted(ROOT.rglob("*.py"))
        if path.name != "__main__.py"
    ]


@lru_cache(maxsize=1)  # the trees of all modules would slow down each garbage collection
def tree_of(name: str) -> ast.Module:
    module = importlib.import_module(name)
    return ast.parse(Path(module.__file__ or "").read_text())


def promised(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", []))


def public_methods(cls: type) -> Iterator[str]:
    """The methods and properties of a class that came from this package, inherited ones too."""
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        function = getattr(member, "fget", getattr(member, "__func__", member))
        module = getattr(function, "__module__", None) or ""
        ours = inspect.isfunction(function) and module.startswith("fal_async")
        if ours and not name.startswith("_"):
            yield name


def shelf(name: str) -> tuple[int, str]:
    """Where a name stands: constants, then classes, then the rest."""
    return 0 if name.isupper() else 1 if name[0].isupper() else 2, name


def pickled_modules(pickled: bytes) -> set[str]:
    """Find the modules that a pickle names."""
    found: set[str] = set()
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(pickled):
        if "UNICODE" in opcode.name:
            strings.append(str(argument))
        elif opcode.name == "GLOBAL":
            found.add(str(argument).partition(" ")[0])
        elif opcode.name == "STACK_GLOBAL":
            found |= {text for text in strings if text.startswith("fal_async")}
    return found


MODULES = module_names()
#: The modules that users import.
SHOWN = [name for name in MODULES if name.count(".") < 2 and "._" not in name]


@pytest.mark.parametrize("name", MODULES)
def test_module_exports_are_unique_and_sorted(name: str) -> None:
    module = importlib.import_module(name)
    names = promised(module)
    assert [missing for missing in names if not hasattr(module, missing)] == []
    assert names == sorted(set(names), key=shelf)


@pytest.mark.parametrize("name", SHOWN)
def test_public_modules_export_everything(name: str) -> None:
    defined = {
        node.name
        for node in tree_of(name).body
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_")
    }
    assert defined <= set(promised(importlib.import_module(name)))


@pytest.mark.parametrize("name", MODULES)
def test_every_export_is_documented(name: str) -> None:
    names = promised(importlib.import_module(name))
    bare = [
        node.name
        for node in tree_of(name).body
        if isinstance(node, ast.ClassDef | Function)
        and node.name in names
        and not ast.get_docstring(node)
    ]
    assert bare == []
    assert ast.get_docstring(tree_of(name)) or not tree_of(name).body


@pytest.mark.parametrize("name", SHOWN)
def test_every_method_that_is_shown_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    classes = [cls for shown in promised(module) if isinstance(cls := getattr(module, shown), type)]
    bare = [
        f"{cls.__name__}.{method}"
        for cls in classes
        for method in public_methods(cls)
        if not inspect.getdoc(inspect.getattr_static(cls, method))
    ]
    assert bare == []


def test_the_methods_of_a_class_are_found() -> None:
    assert {"aclose", "run", "submit", "with_options"} <= set(public_methods(fal_async.AsyncClient))
    assert list(public_methods(fal_async.Cancellation)) == ["accepted"]
    assert set(public_methods(fal_async.Hosts)) == {"at", "from_environment"}


def test_package_exports_values_and_functions() -> None:
    names = {name for module in (_config, functions, errors, types) for name in module.__all__}
    names -= {"from_dict"}  # of errors alone
    assert names | {"AsyncClient", "AsyncRequestHandle", "PooledTransport"} <= set(
        fal_async.__all__
    )


def test_package_dir_lists_only_exports() -> None:
    assert fal_async.__all__ == sorted(fal_async.__all__)
    assert dir(fal_async) == fal_async.__all__
    everything: dict[str, object] = {}
    exec("from fal_async import *", everything)
    assert everything.keys() - {"__builtins__"} == set(fal_async.__all__)


def test_every_export_has_one_identity() -> None:
    for name in fal_async.__all__:
        assert getattr(fal_async, name) is getattr(fal_async, name)
        assert not name.startswith("_") or name == "__version__"


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fal_async.nonsense


def test_the_version_is_the_top_of_the_changelog() -> None:
    top = re.search(r"^## \[(\d+\.\d+\.\d+)\]", CHANGELOG.read_text(encoding="utf-8"), re.MULTILINE)
    assert top is not None
    assert fal_async.__version__ == top[1]


def test_the_package_is_typed() -> None:
    assert (ROOT / "py.typed").exists()


def loaded_modules(code: str) -> set[str]:
    """Return the names of the modules that a new interpreter has after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return set(done.stdout.split())


def test_package_import_loads_nothing_else() -> None:
    loaded = loaded_modules("import fal_async")
    assert {name for name in loaded if name.startswith("fal_async")} == {
        "fal_async",
        "fal_async._version",
    }
    assert "dataclasses" not in loaded  # imports ten modules, and takes longer than this package


def test_import_of_values_is_light() -> None:
    assert not loaded_modules("from fal_async import errors, types") & set(LATE)


@pytest.mark.parametrize("name", FIRST_CALLS)
def test_first_call_loads_what_it_needs(name: str, fal: Emulator) -> None:
    fal.register("demo/echo", echo)
    loaded = loaded_modules(FIRST_CALLS[name].format(key=fal.key, url=fal.url))
    assert "fal_async._http.pool" in loaded
    late = NOT_FOR_FIRST_CALL + (NOT_FOR_FIRST_ASYNC_CALL if name == "async" else [])
    # Older versions of anyio import more.
    assert sorted(loaded & set(late) - loaded_modules("import anyio")) == []


def test_blocking_import_is_light() -> None:
    late = {"fal_async.batch.batch", "httpx", "pydantic", "sqlite3", "websockets"}
    assert not loaded_modules("import fal_async.sync\nfal_async.sync.SyncClient") & late


@pytest.mark.parametrize("name", ["Hosts", "Limits", "RetryPolicy"])
def test_configuration_needs_nothing_heavy_either(name: str) -> None:
    assert not loaded_modules(f"import fal_async\nfal_async.{name}()") & set(LATE)


def test_public_api_is_as_recorded() -> None:
    """`python -m tests.support.public_api` renews the record, and a diff shows what changed."""
    assert public_api.describe() == public_api.RECORD.read_text("utf-8")


@pytest.mark.parametrize("name", public_api.samples())
def test_stored_pickles_are_readable(name: str) -> None:
    value = public_api.samples()[name]
    stored: Any = pickle.loads((public_api.DATA / f"{name}.pickle").read_bytes())
    assert type(stored) is type(value)
    if isinstance(value, BaseException):
        assert str(stored) == str(value)
        assert vars(stored) == vars(value)
    else:
        assert stored == value
    for attribute in ("request_id", "billable_units", "metrics", "retries", "headers"):
        if isinstance(value, fal_async.Result):
            assert getattr(stored, attribute) == getattr(value, attribute)


@pytest.mark.parametrize("name", public_api.samples())
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_name_public_modules(name: str, protocol: int) -> None:
    value = public_api.samples()[name]
    assert pickled_modules(pickle.dumps(value, protocol)) <= {
        "functools",
        "builtins",
        "copy_reg",
        "__builtin__",
        *SHOWN,
    }


def test_public_classes_show_public_modules() -> None:
    private = {
        f"{name}.{public}: {value.__module__}"
        for name in SHOWN
        for public in promised(importlib.import_module(name))
        if isinstance(value := getattr(importlib.import_module(name), public), type)
        if value.__module__ not in {"builtins", *SHOWN}
    }
    assert private == set()
