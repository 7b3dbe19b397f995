"""Makes the modules that say again, in another form, what the async classes say.

``python -m tests.generate_sync`` writes them; with ``--check`` it only tells which are out of date.
The sources are read as syntax trees, and never imported.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from textwrap import fill, indent
from types import MappingProxyType
from typing import TYPE_CHECKING

from tests.generate_sync.methods import FACES, MARGIN, Method, documented
from tests.generate_sync.sources import PACKAGE, Function, Source, public_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SYNC_DOCSTRING = '''"""The blocking face of fal_async: the same calls, for code that does not await.

``import fal_async.sync as fal_client`` runs code that was written for the official client. Its
functions share one client; `SyncClient` has settings of its own. What they do happens on an event
loop in a thread, which the first call starts; callbacks run on the thread that calls.

Ctrl-C cancels what the call does, and with it the job that it submitted. What arrives in that very
moment is not lost: a message is received by the next ``recv``, and any other outcome, such as the
handle of the job, the URL of an upload or a list of the next events of a stream, is the attribute
``outcome`` of the `KeyboardInterrupt`.
"""'''
FILES_DOCSTRING = '"""The blocking face of the files of results."""'
FUNCTIONS_DOCSTRING = (
    '"""The calls of `AsyncClient` as functions, on a client of the running event loop."""'
)
#: Where the async classes are, and the bases of their faces; {} is the async class. Those that the
#: package does not show have no face.
CLASSES = {
    "AsyncRequestHandle": ("_client/handle", "SyncWrapper[{}]"),
    "EventStream": ("_client/stream", "SyncStreamBase[{}[E], E]"),
    "AsyncRealtimeConnection": ("_client/sessions", "SyncConnectionBase[{}, Any]"),
    "WebSocketConnection": ("_client/sessions", "SyncConnectionBase[{}, str | bytes]"),
    "WebSocketResponse": ("_client/http_over_websocket", "SyncStreamBase[{}, Any]"),
    "HTTPOverWebSocket": ("_client/http_over_websocket", "SyncWrapper[{}]"),
    "Download": ("_files/downloads", "SyncStreamBase[{}, bytes]"),
    "AsyncClient": ("_client/client", "SyncClientBase[{}]"),
    "File": ("_files/file", "SyncFileBase"),
}
#: Names that load when first used, since they need pydantic or httpx, and where they are.
LATE = {
    "Arguments": "fal_async",
    "File": "fal_async",
    "PooledTransport": "fal_async",
    "SyncFile": "fal_async.sync._file",
    "async_client": "fal_async",
    "sync_client": "fal_async.sync._default",
}
#: Type variables that are needed when the module runs; defaults are for type checkers.
RUNTIME_VARIABLES = """
else:
    from typing import TypeVar

    E = TypeVar("E")
"""
SHARED_CLIENT = '''
_clients: dict[str, SyncClient] = {}


def _client() -> SyncClient:
    """The client that the functions share; every thread gets the same one."""
    return _clients.get("shared") or _clients.setdefault("shared", SyncClient())
'''


GETATTR = f"""
_LATE = {LATE}


def __getattr__(name: str) -> object:
    if name in {{"auth", "client"}}:  # which programs for the official client do not import
        return import_module(f"{{__name__}}.{{name}}")
    if name not in _LATE:
        raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
    value = getattr(import_module(_LATE[name]), name)
    make_resolvable(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


for _value in list(globals().values()):
    make_resolvable(_value)
"""


class AsyncClass:
    """An async class, with what it inherits."""

    def __init__(self, name: str) -> None:
        module, self.base = CLASSES[name]
        self.name, self.source = name, Source.read(module)
        self.node = self.source.classes[name]
        self.parts = self.source.parts(name)

    @property
    def sources(self) -> list[Source]:
        return [self.source, *(source for source, _ in self.parts)]

    @property
    def calls(self) -> list[Method]:
        """The methods of its parts."""
        return [method for _, node in self.parts for method in self._methods(node)]

    def as_face(self) -> str:
        own = self._methods(self.node)
        methods = [*(m for m in own if m.name == "__init__"), *self.calls]
        methods += [method for method in own if method.name != "__init__"]
        body = [*self._properties(), *(method.as_method() for method in methods)]
        text = documented(self.node, blocking=True) + "\n" + "\n\n".join(body)
        return f"class {FACES[self.name]}({self.base.format(self.name)}):\n{indent(text, MARGIN)}"

    def _methods(self, node: ast.ClassDef) -> list[Method]:
        functions = [part for part in node.body if isinstance(part, Function)]
        return [
            method for method in (Method(self.name, part) for part in functions) if method.is_said
        ]

    def _properties(self) -> Iterable[str]:
        """The public attributes that are annotated in the class or its constructor."""
        parts = list(self.node.body)
        for each in self.node.body:
            if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                parts += each.body
        kinds = {
            ast.unparse(node.target).removeprefix("self."): ast.unparse(node.annotation)
            for node in parts
            if isinstance(node, ast.AnnAssign)
        }
        about = (
            (ast.get_docstring(self.node) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        )
        for name, said in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", about, re.MULTILINE):
            if name in kinds:  # others are inherited, also by the face
                body = f'"""{" ".join(said.split())}"""\nreturn self._async.{name}'
                yield f"@property\ndef {name}(self) -> {kinds[name]}:\n{indent(body, MARGIN)}"


def functions_module() -> str:
    """``_functions.py``: the calls as coroutines of a module."""
    client = AsyncClass("AsyncClient")
    sources = [source for source, _ in client.parts]
    return _module(
        sources,
        FUNCTIONS_DOCSTRING,
        "from fal_async._client.default import default_client, load_default_client",
        _type_checking(sources, set()),
        _all(method.name for method in client.calls),
        *(method.as_function(blocking=False) for method in client.calls),
    )


def sync_module() -> str:
    """``sync/__init__.py``: the faces, and the calls as functions of a module."""
    shown = public_names("__init__")
    classes = [AsyncClass(name) for name in CLASSES if name in shown and name not in LATE]
    sources = [source for each in classes for source in each.sources]
    calls = [method for each in classes for method in each.calls]
    names = {method.name for method in calls}
    shared = [name for name in shown if name not in names and name not in LATE]
    faces = ["SyncResult", *(FACES[each.name] for each in classes)]
    known_types = _type_checking(
        sources,
        {*shared, *faces, *names, *LATE, "wrap_result", "conceal", "UNCHANGED"},
        LATE,
    )
    return _module(
        sources,
        SYNC_DOCSTRING,
        "from importlib import import_module",
        f"from fal_async import {', '.join(shared)}",
        "from fal_async._core.annotations import make_resolvable",
        "from fal_async._config import UNCHANGED",
        "from fal_async._core.secrets import conceal",
        "from fal_async.sync._wrappers import SyncClientBase, SyncConnectionBase",
        "from fal_async.sync._wrappers import SyncStreamBase, SyncWrapper",
        "from fal_async._client.handle import SupportsAttach, check_client, handle_schema",
        "from fal_async.sync._task import run_in_caller_thread",
        "from fal_async.sync._results import SyncResult, wrap_result",
        known_types.replace("default=Result", "default=SyncResult") + RUNTIME_VARIABLES,
        _all([*shared, *names, *faces, *LATE]),
        *(each.as_face() for each in classes),
        SHARED_CLIENT,
        *(method.as_function(blocking=True) for method in calls),
        GETATTR,
    )


def files_module() -> str:
    """``_sync_files.py``: the face of files, which loads when it is used."""
    file = AsyncClass("File")
    return _module(
        file.sources,
        FILES_DOCSTRING,
        "from fal_async.sync._wrappers import SyncFileBase",
        "from fal_async.sync import SyncDownload",
        _type_checking(file.sources, set()),
        _all([FACES[file.name]]),
        file.as_face(),
    )


#: The modules that are made, and how.
MODULES = {
    "_client/functions.py": functions_module,
    "sync/_file.py": files_module,
    "sync/__init__.py": sync_module,
}


def _module(sources: list[Source], docstring: str, *parts: str) -> str:
    origins = sorted(f"{source.name}.py" for source in sources)
    origin = " and ".join(filter(None, [", ".join(origins[:-1]), origins[-1]]))
    first = f"# Made by `python -m tests.generate_sync` from {origin}; do not edit."
    comment = fill(first, 100, subsequent_indent="# ", break_on_hyphens=False)
    if any("format: str" in part for part in parts):
        comment += "\n# ruff: noqa: A002 -- the official client's names"
    start = [f"{comment}\n{docstring}", "from __future__ import annotations"]
    start.append("from typing import TYPE_CHECKING, Any, overload")
    return "\n\n".join([*start, *parts])


def _type_checking(
    sources: list[Source], known: set[str], late: Mapping[str, str] = MappingProxyType({})
) -> str:
    """All imports that annotations may need, of which ruff keeps those that they do."""
    lines = [f"from {module} import {name}" for name, module in late.items()]
    lines += ["from contextlib import AbstractAsyncContextManager, AbstractContextManager"]
    lines.append("from collections.abc import Generator, Iterator")
    for node in (node for source in sources for node in source.imports):
        node.names = [
            each for each in node.names if each.name not in {"TYPE_CHECKING", "Any", *known}
        ]
        if node.names and "__future__" not in ast.unparse(node):
            lines.append(ast.unparse(node))
    variables = {line.split()[0]: line for source in sources[::-1] for line in source.variables}
    return "if TYPE_CHECKING:\n" + indent(
        "\n".join(dict.fromkeys([*lines, *variables.values()])), MARGIN
    )


def _all(names: Iterable[str]) -> str:
    return f"__all__ = {sorted(names)}"


def _tidied(text: str, name: str) -> str:
    path = str((PACKAGE / name).with_name("made.py"))  # what `__init__.py` imports is never pruned
    sort_and_prune = ["check", "--fix-only", "--quiet", "--select", "F401,F811,I,RUF022"]
    for command in (sort_and_prune, ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", path, "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


def stale() -> list[str]:
    """The modules that are not what would be made now."""
    return [
        name
        for name, make in MODULES.items()
        if not (PACKAGE / name).exists() or (PACKAGE / name).read_text() != _tidied(make(), name)
    ]


def main() -> int:
    """Write the modules, or with ``--check`` fail if one is out of date."""
    names = stale()
    if "--check" not in sys.argv:
        for name in names:
            (PACKAGE / name).write_text(_tidied(MODULES[name](), name))
    sys.stdout.writelines(f"fal_async/{name} was out of date\n" for name in names)
    return len(names) if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
