"""Secrets: keys, tokens and signed queries, which nothing shows."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Never, Self, cast, final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Secret", "Variables", "conceal"]


@final
class Secret:
    """A text that no repr, log, f-string, copy or pickle shows.

    Tools that report errors show the local variables of every frame of a traceback. So secrets
    travel as this from the constructor to the socket, and are revealed only within expressions:
    no local variable ever holds what `reveal` returns.

    Example:
        >>> secret = Secret("id:secret")
        >>> print(f"{secret} {secret!r}", secret == Secret("id:secret"))
        <hidden> <hidden> True
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "<hidden>"

    def __format__(self, spec: str) -> str:
        return format("<hidden>", spec)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Secret):
            return self._text == other._text
        return self._text == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> Never:
        raise TypeError("a secret is in no pickle")


class Variables:
    """Environment variables, some of which are secrets, out of sight as those are.

    It is no `Mapping`: reporters show what mappings hold.

    Args:
        environ: The variables by their names.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def get(self, name: str, default: str = "") -> str:
        """The value of a variable, or else the default."""
        return self._environ.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)


def conceal(key: object) -> Any:
    """The same argument, with a text (or what was given instead of one) out of sight.

    A constructor that takes a key assigns this to its parameter before it does anything else.
    Functions, ``None``, marks of an enumeration and secrets stay as they are.
    """
    if key is None or isinstance(key, Secret | Enum) or callable(key):
        return key
    return Secret(cast("str", key))  # judged where it is used
