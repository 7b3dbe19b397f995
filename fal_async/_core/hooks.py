"""Hooks: their type, their validation, and the scope of `use`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from fal_async._core.checks import describe
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Generator

    from fal_async.hooks._events import Hook

__all__ = ["check_hooks", "log_failures", "scoped_hooks", "use"]

_log = logging.getLogger("fal_async")

#: The hooks of the blocks of `use` that the caller is in.
scoped_hooks: ContextVar[tuple[Hook, ...]] = ContextVar("fal_async_hooks", default=())


#: The types of the errors that hooks have raised.
_failures: WeakKeyDictionary[Hook, set[type[Exception]]] = WeakKeyDictionary()


def check_hooks(hooks: object) -> tuple[Hook, ...]:
    """Validate the `hooks` argument: a function, several of them, or ``None`` for none."""
    if hooks is None:
        return ()
    found: Any = (hooks,) if callable(hooks) else hooks
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        raise InvalidRequestError(
            f"hooks must be a function or a list of functions, got {describe(hooks)}"
        )
    checked = cast("Sequence[Hook]", found)
    for hook in checked:
        if not callable(hook):
            raise InvalidRequestError(f"hooks must be functions, got {describe(hook)}")
    return tuple(checked)


class log_failures:  # noqa: N801 -- used like a function; a generator would cost more
    """Log an exception of a hook, without the error of the call during which it was raised.

    Messages of the platform quote arguments, which no log line may contain. A hook that always
    fails is called several times by each call, so later exceptions of a type are logged at DEBUG.
    """

    __slots__ = ("_during", "_hook")

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self._during = sys.exception()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, Exception):
            return False
        last: BaseException = error
        while last.__context__ not in (None, self._during):
            last = last.__context__
        last.__context__ = None
        level = logging.ERROR if _is_first(self._hook, error) else logging.DEBUG
        _log.log(level, "A hook has failed, which does not affect the call", exc_info=error)
        return True


def _is_first(hook: Hook, error: Exception) -> bool:
    """Return whether a hook has raised no error of this type before."""
    try:
        types = _failures.setdefault(hook, set())
    except Exception:  # noqa: BLE001 -- the caller's object may have no hash or no weak references
        return True
    is_first = type(error) not in types
    types.add(type(error))
    return is_first


@contextmanager
def use(*hooks: Hook) -> Generator[None]:
    """Report the events of all calls of the block to more hooks, whichever client they use.

    Tasks that start within the block belong to it.

    Args:
        hooks: The hooks, which may be sync or async functions.

    Raises:
        InvalidRequestError: A hook is not callable.

    Example:
        >>> async def main() -> None:
        ...     with fal_async.hooks.use(lambda event: print(type(event).__name__)):
        ...         await fal_async.run("demo/echo", {"prompt": "a cat"})
        >>> anyio.run(main)
        CallStarted
        AttemptStarted
        ResponseStarted
        CallEnded
    """
    token = scoped_hooks.set((*scoped_hooks.get(), *check_hooks(hooks)))
    try:
        yield
    finally:
        scoped_hooks.reset(token)
