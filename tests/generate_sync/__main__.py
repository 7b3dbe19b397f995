"""Generate the blocking API and the module-level functions from the async classes.

``python -m tests.generate_sync`` writes the modules; with ``--check`` it lists outdated ones.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from textwrap import fill, indent
from typing import TYPE_CHECKING

from tests.generate_sync.docstrings import NAMES
from tests.generate_sync.methods import MARGIN, WRAPPED, Method, docstring
from tests.generate_sync.sources import PACKAGE, Function, Source, public_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SYNC_DOCSTRING = '''"""The blocking API of fal_async: the same calls, without ``await``.

``import fal_async.sync as fal_client`` runs code that was written for the official client. The
functions share a default client; a `SyncClient` has settings of its own. The calls run on an event
loop in a thread, which the first call starts and all threads of the process share. Callbacks run on
the calling thread.

Ctrl-C cancels the call, and with it the job that the call submitted. An outcome that arrives at
that moment is not lost: the next ``recv`` returns the message. Any other outcome, such as the
handle of the job, the URL of an upload or a list of the next events of a stream, is the attribute
``outcome`` of the `KeyboardInterrupt`.
"""'''
#: The modules of the async classes.
SOURCES = {
    "AsyncRequestHandle": "_client/handle",
    "EventStream": "_client/stream",
    "AsyncRealtimeConnection": "_client/sessions",
    "WebSocketConnection": "_client/sessions",
    "WebSocketResponse": "_client/http_over_websocket",
    "HTTPOverWebSocket": "_client/http_over_websocket",
    "AsyncRequests": "_platform/requests",
    "AsyncModels": "_platform/models",
    "AsyncClient": "_client/client",
    "Batch": "batch/batch",
    "Download": "_files/downloads",
    "File": "_files/file",
}
FILES = ["Download", "File"]
BATCH = ["Batch"]
#: Methods that have no function, since a package has the name.
METHODS_ONLY = {"batch"}
PLATFORM = ["AsyncModels", "AsyncRequests"]
OBJECTS = [name for name in SOURCES if name not in {*FILES, *PLATFORM, *BATCH, "AsyncClient"}]
#: Public names of the blocking API that load on first use, and their modules.
LAZY = {
    "SyncBatch": "fal_async.sync._batch",
    "SyncDownload": "fal_async.sync._file",
    "SyncFile": "fal_async.sync._file",
    "SyncJob": "fal_async.sync._jobs",
    "SyncModels": "fal_async.sync._platform",
    "SyncRequests": "fal_async.sync._platform",
    "SyncWebhookEvent": "fal_async.sync._webhooks",
    "Webhooks": "fal_async.sync._webhooks",
    "missed": "fal_async.sync._webhooks",
}
#: Public names of the blocking API that are written by hand.
OWN = ["SyncClient", "SyncPages", "SyncResult", "sync_client"]
#: The type variable of `SyncEventStream`; only type checkers support its default.
EVENT_VARIABLE = """
    E = TypeVar("E", default=dict[str, Any])
else:
    from typing import TypeVar

    E = TypeVar("E")
"""
#: A method that only the wrapper has.
ATTACH = '''
@classmethod
def _attach_to_default(cls, data: dict[str, str]) -> Self:
    """Return the handle of a job, bound to the default client."""
    client = default_client()
    return cls(client._portal, client._async.attach(data))
'''
DEFAULT_CLIENT = """
def _client() -> SyncClient:
    return SyncClient._from_base(default_client())
"""
GETATTR = """
def __getattr__(name: str) -> object:
    if name in {"auth", "client"}:  # programs for the official client do not import them
        return import_module(f"{__name__}.{name}")
    if name == "sync_client":
        value: object = SyncClient._from_base(default_client())
    elif name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    make_resolvable(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


for _value in list(globals().values()):
    make_resolvable(_value)
"""


class AsyncClass:
    """An async class with the classes that it inherits methods from."""

    def __init__(self, name: str) -> None:
        self.name, self.source = name, Source.read(SOURCES[name])
        self._node = self.source.classes[name]
        self.bases = self.source.bases(name)

    @property
    def sources(self) -> list[Source]:
        return [self.source, *(source for source, _ in self.bases)]

    @property
    def inherited_methods(self) -> list[Method]:
        return [method for _, node in self.bases for method in self._methods(node)]

    def as_wrapper(self) -> str:
        own = self._methods(self._node)
        methods = [*(m for m in own if m.name == "__init__"), *self.inherited_methods]
        methods += [method for method in own if method.name != "__init__"]
        body = [*self._properties(), *(method.as_method() for method in methods)]
        body += [ATTACH] if self.name == "AsyncRequestHandle" else []
        text = docstring(self._node, blocking=True) + "\n" + "\n\n".join(body)
        head = f"class {NAMES[self.name]}({WRAPPED[self.name]}):"
        return f'@set_module("fal_async.sync")\n{head}\n{indent(text, MARGIN)}'

    def _methods(self, node: ast.ClassDef) -> list[Method]:
        methods = [Method(self.name, part) for part in node.body if isinstance(part, Function)]
        return [method for method in methods if method.is_wrapped]

    def _properties(self) -> Iterable[str]:
        """Return a property for each documented attribute that the class itself annotates."""
        statements = list(self._node.body)
        for node in self._node.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                statements += node.body
        types = {
            ast.unparse(node.target).removeprefix("self."): ast.unparse(node.annotation)
            for node in statements
            if isinstance(node, ast.AnnAssign)
        }
        text = ast.get_docstring(self._node) or ""
        attributes = text.partition("Attributes:\n")[2].partition("\n\n")[0]
        for name, about in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", attributes, re.MULTILINE):
            if name in types:
                body = f'"""{" ".join(about.split())}"""\nreturn self._async.{name}'
                yield f"@property\ndef {name}(self) -> {types[name]}:\n{indent(body, MARGIN)}"


def async_functions() -> str:
    """Generate the calls of `AsyncClient` as functions."""
    client = AsyncClass("AsyncClient")
    methods = [each for each in client.inherited_methods if each.name not in METHODS_ONLY]
    return _module(
        [source for source, _ in client.bases],
        '"""The calls of `AsyncClient` as functions of the default client."""',
        ["from fal_async._client.default import default_client, load_default_client"],
        *(method.as_function(blocking=False) for method in methods),
        public=[method.name for method in methods],
    )


def sync_functions() -> str:
    """Generate the calls of `SyncClient` as functions."""
    client = AsyncClass("AsyncClient")
    methods = [each for each in client.inherited_methods if each.name not in METHODS_ONLY]
    return _module(
        [source for source, _ in client.bases],
        '"""The calls of `SyncClient` as functions of the default client."""',
        [
            *_wrapper_imports(OBJECTS, "_objects"),
            "from fal_async.sync._client import SyncClient",
            "from fal_async.sync._default import default_client",
        ],
        DEFAULT_CLIENT,
        *(method.as_function(blocking=True) for method in methods),
        public=[method.name for method in methods],
        blocking=True,
    )


def sync_client() -> str:
    """Generate `SyncClient`."""
    client = AsyncClass("AsyncClient")
    return _module(
        client.sources,
        '"""`SyncClient`: the blocking client."""',
        [
            *_wrapper_imports(OBJECTS, "_objects"),
            *_wrapper_imports(PLATFORM, "_platform"),
            *_wrapper_imports(BATCH, "_batch"),
            "from fal_async._client.client import AsyncClient",
        ],
        client.as_wrapper(),
        public=["SyncClient"],
        blocking=True,
    )


def sync_objects() -> str:
    """Generate the wrappers of handles, streams and connections."""
    classes = [AsyncClass(name) for name in OBJECTS]
    return _module(
        [source for each in classes for source in each.sources],
        '"""Blocking wrappers of handles, streams and connections."""',
        [f"from fal_async.{SOURCES[name].replace('/', '.')} import {name}" for name in OBJECTS]
        + ["from fal_async.sync._default import default_client"],
        *(each.as_wrapper() for each in classes),
        public=[NAMES[name] for name in OBJECTS],
        blocking=True,
    )


def sync_platform() -> str:
    """Generate the wrappers of the platform API."""
    classes = [AsyncClass(name) for name in PLATFORM]
    return _module(
        [source for each in classes for source in each.sources],
        '"""Blocking wrappers of the platform API."""',
        [f"from fal_async.{SOURCES[name].replace('/', '.')} import {name}" for name in PLATFORM]
        + ["from fal_async.sync._pages import SyncPages"],
        *(each.as_wrapper() for each in classes),
        public=[NAMES[name] for name in PLATFORM],
        blocking=True,
    )


def sync_batch() -> str:
    """Generate the wrapper of batches."""
    classes = [AsyncClass(name) for name in BATCH]
    return _module(
        [source for each in classes for source in each.sources],
        '"""Blocking batches."""',
        [
            "from fal_async.batch.jobs import BatchSummary, Progress",
            "from fal_async.sync._jobs import SyncBatchBase",
        ],
        *(each.as_wrapper() for each in classes),
        public=[NAMES[name] for name in BATCH],
        blocking=True,
    )


def sync_file() -> str:
    """Generate the wrappers of files and downloads."""
    classes = [AsyncClass(name) for name in FILES]
    return _module(
        [source for each in classes for source in each.sources],
        '"""Files in outputs, and their downloads."""',
        [
            "from fal_async._files.downloads import Download",
            "from fal_async.sync._file_base import SyncFileBase",
        ],
        *(each.as_wrapper() for each in classes),
        public=[NAMES[name] for name in FILES],
        blocking=True,
    )


def sync_package() -> str:
    """Generate the public names of the blocking API."""
    methods = AsyncClass("AsyncClient").inherited_methods
    functions = [method.name for method in methods if method.name not in METHODS_ONLY]
    shared = [name for name in public_names("__init__") if name not in functions]
    wrappers = [NAMES[name] for name in OBJECTS]
    lazy = {
        **dict.fromkeys(shared, "fal_async"),
        **dict.fromkeys(functions, "fal_async.sync._functions"),
        **LAZY,
    }
    for_types = [f"from {module} import {name}" for name, module in lazy.items()]
    return _text(
        ["__init__"],
        SYNC_DOCSTRING,
        "from importlib import import_module",
        "from fal_async._core.annotations import make_resolvable",
        "from fal_async.sync._client import SyncClient",
        "from fal_async.sync._default import default_client",
        f"from fal_async.sync._objects import {', '.join(wrappers)}",
        "from fal_async.sync._pages import SyncPages",
        "from fal_async.sync._results import SyncResult",
        "if TYPE_CHECKING:\n" + indent("\n".join([*for_types, "sync_client: SyncClient"]), MARGIN),
        _all([*wrappers, *lazy, *OWN]),
        f"_LAZY = {lazy}",
        GETATTR,
    )


#: The generated modules.
MODULES: dict[str, Callable[[], str]] = {
    "_client/functions.py": async_functions,
    "sync/__init__.py": sync_package,
    "sync/_batch.py": sync_batch,
    "sync/_client.py": sync_client,
    "sync/_file.py": sync_file,
    "sync/_functions.py": sync_functions,
    "sync/_objects.py": sync_objects,
    "sync/_platform.py": sync_platform,
}


def _wrapper_imports(names: list[str], module: str) -> list[str]:
    return [f"from fal_async.sync.{module} import {NAMES[name]}" for name in names]


def _module(
    sources: list[Source],
    about: str,
    imports: list[str],
    *parts: str,
    public: Iterable[str],
    blocking: bool = False,
) -> str:
    """Return the source text of a module; `_format` removes the imports that it does not need."""
    if blocking:
        imports = [
            *imports,
            "from fal_async._config import UNCHANGED",
            "from fal_async._core.annotations import set_module",
            "from fal_async._core.secrets import conceal",
            "from fal_async._client.handle import SupportsAttach, check_client, handle_schema",
            "from fal_async.sync._results import SyncResult, wrap_result",
            "from fal_async.sync._task import run_in_caller_thread",
            "from fal_async.sync._wrappers import SyncClientBase, SyncConnectionBase",
            "from fal_async.sync._wrappers import SyncStreamBase, SyncWrapper",
        ]
    known = {name for line in imports for name in re.split(r"\W+", line.partition(" import ")[2])}
    variables = {line.split()[0]: line for source in sources[::-1] for line in source.variables}
    types = "\n".join([*_type_imports(sources, known | {*public}), *variables.values()])
    if blocking:
        types = types.replace("default=Result", "default=SyncResult")
    checking = "if TYPE_CHECKING:\n" + indent(types, MARGIN)
    if any("class SyncEventStream" in part for part in parts):
        checking += EVENT_VARIABLE
    names = [source.name for source in sources]
    return _text(names, about, *imports, checking, _all(public), *parts)


def _text(origins: Iterable[str], about: str, *parts: str) -> str:
    *others, last = sorted({f"{name}.py" for name in origins})
    origin = f"{', '.join(others)} and {last}" if others else last
    comment = fill(
        f"# Generated from {origin} by `python -m tests.generate_sync`. "
        "Do not edit: change the source and run that command.",
        100,
        subsequent_indent="# ",
        break_on_hyphens=False,
    )
    if any("format: str" in part for part in parts):
        comment += "\n# ruff: noqa: A002 -- the official client's names"
    start = [f"{comment}\n{about}", "from __future__ import annotations"]
    start.append("from typing import TYPE_CHECKING, Any, overload")
    return "\n\n".join([*start, *parts])


def _type_imports(sources: list[Source], known: set[str]) -> list[str]:
    """Return all imports that annotations may need."""
    lines = ["from contextlib import AbstractAsyncContextManager, AbstractContextManager"]
    lines.append("from collections.abc import Generator, Iterator")
    if "SyncFile" not in known:
        lines.append("from fal_async.sync._file import SyncFile")
    for node in (node for source in sources for node in source.imports):
        node.names = [
            each for each in node.names if each.name not in {"TYPE_CHECKING", "Any", *known}
        ]
        if node.names and "__future__" not in ast.unparse(node):
            lines.append(ast.unparse(node))
    return list(dict.fromkeys(lines))


def _all(names: Iterable[str]) -> str:
    return f"__all__ = {sorted(names)}"


def _format(text: str, name: str) -> str:
    # ruff keeps unused imports of an `__init__.py`, so the text goes by another name.
    path = str((PACKAGE / name).with_name("generated.py"))
    fix = ["check", "--fix-only", "--unsafe-fixes", "--quiet", "--select", "F401,F811,I,RUF022,TC"]
    for command in (fix, ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", path, "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


def stale() -> dict[str, str]:
    """Return the modules that are not up to date, with the text that they should have."""
    current = {name: _format(make(), name) for name, make in MODULES.items()}
    return {
        name: text
        for name, text in current.items()
        if not (PACKAGE / name).exists() or (PACKAGE / name).read_text("utf-8") != text
    }


def main() -> int:
    """Write the modules, or with ``--check`` fail if one is not up to date."""
    modules = stale()
    check = "--check" in sys.argv
    for name, text in modules.items():
        sys.stdout.write(f"fal_async/{name} was out of date\n")
        if not check:
            (PACKAGE / name).write_text(text, "utf-8")
    return len(modules) if check else 0


if __name__ == "__main__":
    sys.exit(main())
