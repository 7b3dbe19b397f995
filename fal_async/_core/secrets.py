"""Secrets: keys, tokens and signed queries that no output shows."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Never, Self, cast, final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Secret", "Variables", "conceal"]


@final
class Secret:
    """A text that no repr, log, f-string or pickle shows.

    Error reporters show the local variables of each frame of a traceback. So secrets stay wrapped
    from the constructor to the socket, and are revealed in expressions only: no local variable
    holds the result of `reveal`.

    Example:
        >>> secret = Secret("id:secret")
        >>> print(f"{secret} {secret!r}", secret == Secret("id:secret"))
        <hidden> <hidden> True
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
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
        raise TypeError("a secret cannot be pickled")


class Variables:
    """Environment variables, which may hold secrets.

    The class is not a `Mapping`, since error reporters show the items of mappings.

    Args:
        environ: The variables by name.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def get(self, name: str, default: str = "") -> str:
        """Return the value of a variable, or the default."""
        return self._environ.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)


def conceal(key: object) -> Any:
    """Wrap a key that is a text, or an invalid value, in a `Secret`.

    Constructors assign the result to their parameter first. Functions, ``None``, members of
    enumerations and secrets are returned unchanged.
    """
    if key is None or isinstance(key, Secret | Enum) or callable(key):
        return key
    return Secret(cast("str", key))  # validated on use
