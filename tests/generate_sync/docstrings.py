"""How docstrings of async code are said for blocking code."""

from __future__ import annotations

import ast
import re
from textwrap import dedent, wrap

__all__ = ["PHRASES", "blocking"]

#: What is different for blocking code. A test sees to it that each is still there.
PHRASES = {
    "A client of the platform, for asyncio, uvloop and trio.": (
        "A client of the platform, for code that blocks."
    ),
    "It may be used by several event loops, one after another; connections are kept for each loop "
    "and closed with it. Close it with ``async with`` or `aclose`.": (
        "The first call starts a thread with an event loop, which all threads that use the client "
        "share; a forked process gets its own. Close it with ``with`` or `close`."
    ),
    "a function (sync or async) that gives it and is called for each request": (
        "a function (sync or async) that gives it and is called for each request, on the event loop"
    ),
    "when the task is cancelled,": "on Ctrl-C,",
    "If the caller is cancelled while": "If the caller is interrupted while",
    "; sync or async.": ", on the calling thread; awaited if it is async.",
    "an async iterator, to be closed": "an iterator, to be closed",
    "Several tasks may send": "Several threads may send",
    "even if the task is cancelled": "even if the thread is interrupted",
    "Another task is receiving": "Another thread is receiving",
}
#: The width of docstrings, eight columns further to the left than they are written.
WIDTH = 92

_EXAMPLE = re.compile(
    r"^( *)>>> async def main\(\) -> None:\n((?:\1\.\.\. .*\n)+)\1>>> anyio\.run\(main\)(.*)$",
    re.MULTILINE,
)


def blocking(docstring: str) -> str:
    """A docstring in words for blocking code; names of classes are left as they are."""
    parts = re.split(r"(\n\n|\n(?= +\w+: ))", docstring)  # paragraphs, and the items of lists
    docstring = "".join(_rephrased(part) for part in parts)
    docstring = _EXAMPLE.sub(lambda found: _example(*found.groups()), docstring)
    return re.sub(r"((?:>>>|\.\.\.) .*)\bfal_async\.", r"\1fal_async.sync.", docstring)


def occurs(phrase: str, text: str) -> bool:
    """Whether a phrase occurs, however it is broken into lines."""
    return _pattern(phrase).search(text) is not None


def _pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(r"\s+".join(re.escape(word) for word in phrase.split()))


def _rephrased(paragraph: str) -> str:
    text = paragraph
    for phrase, replacement in PHRASES.items():
        text = _pattern(phrase).sub(replacement, text)
    text = re.sub(r"``async (with|for)``", r"``\1``", text)
    if text == paragraph:
        return text
    first, rest, *_ = [line[: -len(line.lstrip())] for line in paragraph.splitlines() * 2]
    lines = wrap(
        " ".join(text.split()),
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest if "\n" in paragraph else f"{first}    " * bool(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def _example(margin: str, body: str, option: str) -> str:
    code = dedent(body.replace(f"{margin}... ", ""))
    code = re.sub(r"\(await ([\w.]+\([^()]*\))\)(?=[.\[])", r"\1", code)
    code = re.sub(r"\b(await |async (?=with |for ))", "", code)
    *first, last = _statements(code)
    if any("print" in statement for statement in first):  # whose output doctest expects there
        *first, last = f"def main() -> None:\n{_indented(code)}", "main()"
    head, *tail = last.splitlines()
    statements = [*first, "\n".join([head + option, *tail])]
    return "\n".join(f"{margin}{line}" for text in statements for line in _prompted(text))


def _indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.splitlines())


def _statements(code: str) -> list[str]:
    lines = code.splitlines()
    return ["\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in ast.parse(code).body]


def _prompted(statement: str) -> list[str]:
    head, *tail = statement.splitlines()
    return [f">>> {head}", *(f"... {line}" for line in tail)]
