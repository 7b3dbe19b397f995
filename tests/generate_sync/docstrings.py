"""Translation of the code in docstrings to blocking code; prose is copied as it is."""

from __future__ import annotations

import ast
import re
from textwrap import dedent, indent

__all__ = ["blocking_docstring", "rename"]

#: Names of the async API, and those of the blocking API.
NAMES = {
    "AsyncClient": "SyncClient",
    "AsyncGenerator": "Generator",
    "AsyncIterator": "Iterator",
    "AsyncModels": "SyncModels",
    "AsyncPages": "SyncPages",
    "AsyncRealtimeConnection": "RealtimeConnection",
    "AsyncRequestHandle": "SyncRequestHandle",
    "AsyncRequests": "SyncRequests",
    "Batch": "SyncBatch",
    "Download": "SyncDownload",
    "EventStream": "SyncEventStream",
    "File": "SyncFile",
    "HTTPOverWebSocket": "SyncHTTPOverWebSocket",
    "Result": "SyncResult",
    "WebSocketConnection": "SyncWebSocketConnection",
    "WebSocketResponse": "SyncWebSocketResponse",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclose": "close",
}

_CODE = re.compile(r"``[^`]+``|`[^`]+`|(?:>>>|\.\.\.) .*")
_EXAMPLE = re.compile(
    r"^( *)>>> async def main\(\) -> None:\n((?:\1\.\.\. .*\n)+)\1>>> anyio\.run\(main\)(.*)$",
    re.MULTILINE,
)


def rename(code: str) -> str:
    """Replace the names of the async API in source text."""
    code = re.sub(r"AsyncGenerator\[(\w+), None\]", r"Generator[\1, None, None]", code)
    return re.sub(r"\w+", lambda word: NAMES.get(word[0], word[0]), code)


def blocking_docstring(docstring: str) -> str:
    """Translate the names and examples of a docstring."""
    docstring = re.sub(r"``async (with|for)``", r"``\1``", docstring)
    docstring = _EXAMPLE.sub(lambda found: _translate_example(*found.groups()), docstring)
    docstring = re.sub(r"((?:>>>|\.\.\.) .*)\bfal_async\.", r"\1fal_async.sync.", docstring)
    return _CODE.sub(lambda code: rename(code[0]), docstring)


def _translate_example(margin: str, body: str, option: str) -> str:
    """Translate an async ``main`` to statements that doctest runs one by one."""
    code = dedent(body.replace(f"{margin}... ", ""))
    code = re.sub(r"\(await ([\w.]+\([^()]*\))\)(?=[.\[])", r"\1", code)
    code = re.sub(r"\b(await |async (?=with |for ))", "", code)
    lines = code.splitlines()
    *first, last = [
        "\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in ast.parse(code).body
    ]
    if any("print" in statement for statement in first):  # doctest expects all output at the end
        *first, last = f"def main() -> None:\n{indent(code.rstrip(), '    ')}", "main()"
    head, *tail = last.splitlines()
    statements = [*first, "\n".join([head + option, *tail])]
    translated: list[str] = []
    for statement in statements:
        head, *tail = statement.splitlines()
        translated += [f"{margin}>>> {head}", *(f"{margin}... {line}" for line in tail)]
    return "\n".join(translated)
