"""The command line: ``python -m fal_async``.

Needs the extra ``cli``; its command ``demo`` needs ``demo``: ``pip install "fal-async[demo]"``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence  # noqa: TC003 -- `main` is public: its hints can be resolved
from contextlib import suppress
from typing import Final

from fal_async.cli._errors import UsageError, require_modules, sanitize_line
from fal_async.cli._streams import abandon_broken_streams, open_streams
from fal_async.errors import FalClientError, InvalidRequestError, MissingCredentialsError

__all__ = ["main"]

_FAILED: Final = 1
_BAD_INPUT: Final = 2
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status of the process.

    That is 0 when the command did its work, 1 when the platform or the machine did not play along,
    2 when the call was wrong and nothing was sent, 130 when it was interrupted from the keyboard.
    For all but 0 there is one line on stderr, at most.

    Args:
        arguments: What follows the program's name; ``None`` takes those of the process.
    """
    open_streams()
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    finally:
        abandon_broken_streams()


def _run(arguments: Sequence[str]) -> int:
    try:
        require_modules("typer", "rich")
        from fal_async.cli._app import execute  # what it imports was not known to be there

        exit_status = execute(arguments)
        sys.stdout.flush()
    except (UsageError, InvalidRequestError, MissingCredentialsError) as error:
        return _print_error(error, _BAD_INPUT)
    except BrokenPipeError:  # nobody reads on
        return _FAILED
    except (FalClientError, OSError) as error:
        return _print_error(error, _FAILED)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return exit_status


def _print_error(error: Exception, exit_status: int) -> int:
    with suppress(OSError):  # then nobody wants to know
        print(f"fal_async: {sanitize_line(str(error))}", file=sys.stderr)  # noqa: T201 - for people
    return exit_status
