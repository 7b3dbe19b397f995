"""Shows the steps of the demo: what each is called, the code that runs, and what comes of it."""

from __future__ import annotations

import inspect
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fal_async import __version__
from fal_async._protocol.serialization import encode_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Concatenate, ParamSpec

    from fal_async.cli._console import Display, ProgressDisplay

    P = ParamSpec("P")

__all__ = ["StepPresenter", "as_python"]

#: The longest line of code, and of a text within it, in characters.
_LONGEST_LINE: Final = 76
_LONGEST_TEXT: Final = 54

T = TypeVar("T")


class StepPresenter:
    """Where the steps are shown.

    A step is a coroutine function. What its docstring says before the first colon is its name; its
    first parameter is the `ProgressDisplay` that it writes to.
    """

    def __init__(self, screen: Display) -> None:
        self._screen = screen

    def begin(self, remark: str) -> None:
        """Say what this is all about."""
        self._screen.title(f"fal_async {__version__}", remark)

    def show_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Show what the next steps are called with."""
        self._screen.line()
        self._screen.code(as_python(arguments))

    async def show(
        self,
        step: Callable[Concatenate[ProgressDisplay, P], Awaitable[T]],
        *args: P.args,
        **named: P.kwargs,
    ) -> T:
        """Show a step while it is done."""
        self._screen.heading(_title(step))
        self._screen.code(_body(step))
        with self._screen.wait() as wait:
            outcome = await step(wait, *args, **named)
            request_id: str | None = getattr(outcome, "request_id", None)
            if request_id is not None:
                wait.say(f"request {request_id}", "dim")
        return outcome

    def skip(self, step: Callable[..., object], reason: str) -> None:
        """Say why a step is not done."""
        name, _, _ = _title(step).partition(":")
        self._screen.heading(f"{name}: skipped, since {reason}")


def as_python(arguments: Mapping[str, Any]) -> str:
    """An assignment of the arguments; what is neither text nor a path is a picture."""
    pairs = [f'"{name}": {_literal(value)}' for name, value in arguments.items()]
    code = f"arguments = {{{', '.join(pairs)}}}"
    if len(code) <= _LONGEST_LINE:
        return code
    return "\n".join(["arguments = {", *(f"    {pair}," for pair in pairs), "}"])


def _title(step: Callable[..., object]) -> str:
    return (inspect.getdoc(step) or "").rstrip(".")


def _body(step: Callable[..., object]) -> str:
    """The code of a step, from the file that it runs from."""
    _, _, code = inspect.getsource(step).partition('"""\n')
    return dedent(code)


def _literal(value: object) -> str:
    """A value as it is written in Python."""
    match value:
        case str() if len(value) > _LONGEST_TEXT:
            half = _LONGEST_TEXT // 2
            return _literal(f"{value[:half]}…{value[-half + 1 :]}")
        case str():
            return encode_json(value).decode()
        case Path():
            return f"Path({_literal(str(value))})"
        case _:
            return "picture"
