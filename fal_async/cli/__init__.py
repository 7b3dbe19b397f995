"""The command line: ``fal-async``, or ``python -m fal_async``.

Needs the extra ``cli``; the command ``demo`` needs the extra ``demo``:
``pip install "fal-async[demo]"``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence  # noqa: TC003 -- `main` is public: its hints can be resolved
from contextlib import suppress
from typing import Final

from fal_async.cli._errors import Terminated, UsageError, require_modules, write_note
from fal_async.cli._streams import redirect_broken_streams, replace_unusable_streams
from fal_async.errors import FalClientError, InvalidRequestError, MissingCredentialsError

__all__ = ["main"]

_FAILED: Final = 1
_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130
_TERMINATED: Final = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status of the process.

    The exit status is 0 when the command succeeded, 1 when the platform or the system reported an
    error, 2 when the command line was invalid and nothing was sent, 130 when the keyboard
    interrupted the command, and 143 when SIGTERM ended it. An error is one line on stderr.

    Args:
        arguments: The arguments after the name of the program. ``None`` takes those of the process.
    """
    replace_unusable_streams()
    try:
        require_modules("typer", "rich")
        from fal_async.cli._app import execute  # needs the modules checked above

        exit_status = execute(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except (UsageError, InvalidRequestError, MissingCredentialsError) as error:
        return _print_error(error, _USAGE_ERROR)
    except BrokenPipeError:  # the reader of stdout has exited
        return _FAILED
    except (FalClientError, OSError) as error:
        return _print_error(error, _FAILED)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Terminated:
        return _TERMINATED
    else:
        return exit_status
    finally:
        redirect_broken_streams()


def _print_error(error: Exception, exit_status: int) -> int:
    with suppress(OSError):  # stderr may be broken as well
        write_note(str(error))
    return exit_status
