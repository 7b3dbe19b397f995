"""The command line: ``python -m fal_async``.

Needs the extra ``cli``; its command ``demo`` needs ``demo``: ``pip install "fal-async[demo]"``.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final

from fal_async.cli._problems import BadInputError, needs, one_line
from fal_async.errors import FalClientError, InvalidRequestError, MissingCredentialsError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    _never_fail_to_print()
    try:
        needs("typer", "rich")
        from fal_async.cli._app import execute  # what it imports was not known to be there

        exit_status = execute(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except (BadInputError, InvalidRequestError, MissingCredentialsError) as error:
        return _say(error, _BAD_INPUT)
    except BrokenPipeError:
        return _abandon_stdout()
    except (FalClientError, OSError) as error:
        return _say(error, _FAILED)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return exit_status


def _never_fail_to_print() -> None:
    """Show a question mark for what the terminal's encoding cannot express."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def _say(error: Exception, exit_status: int) -> int:
    print(f"fal_async: {one_line(str(error))}", file=sys.stderr)  # noqa: T201 - it is for people
    return exit_status


def _abandon_stdout() -> int:
    """Nobody reads on; keep the interpreter from complaining about it at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _FAILED
