"""The commands and their options."""

from __future__ import annotations

import sys
from collections.abc import Sequence  # noqa: TC003 -- `main` is public: its hints can be resolved
from pathlib import Path
from typing import Annotated, Final

import typer

from fal_async import __version__
from fal_async.cli._errors import UsageError, require_modules

__all__ = ["execute"]

#: The base of the errors about options, wherever this version of typer keeps it.
_UsageError: Final[type[Exception]] = typer.BadParameter.__bases__[0]
_PROMPT: Final = "a cat watching the moon rise over the sea"
_CALLS: Final = "Calls, with the key in FAL_KEY"

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The async-native client for fal.ai, and a platform of your own to try it on.",
    rich_markup_mode="rich",
)

Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Such as fal-ai/flux/dev.")]
RequestId = Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The id of the job.")]
Fields = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=TEXT|KEY:=JSON]...", help="The arguments of the model."),
]
Document = Annotated[
    str | None,
    typer.Option("--input", "-i", metavar="JSON|@FILE|-", help="Arguments, as a JSON object."),
]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="When to give up; never, by default.")
]


def execute(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name, or show the help, and return the exit status.

    Raises:
        BadInputError: The arguments are not right.
        KeyboardInterrupt: The command was interrupted.
    """
    command = typer.main.get_command(app)
    program = "python -m fal_async"
    try:
        exit_status: int | None = command.main(
            list(arguments) or ["--help"], prog_name=program, standalone_mode=False
        )
    except _UsageError as error:
        raise UsageError(getattr(error, "format_message", error.__str__)()) from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    return exit_status or 0


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        sys.stdout.write(f"fal_async {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None: ...


@app.command()
def demo(
    *,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What to draw.")] = _PROMPT,
    image: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A picture to upload, in place of a drawing."),
    ] = None,
    filter_name: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="NAME",
            help="What to do with it: dream, duotone, mosaic, poster, sketch or none.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="PATH", help="Where the picture goes.")] = Path(
        "fal_async_demo.png"
    ),
    live: Annotated[
        str | None,
        typer.Option(metavar="ENDPOINT", help="Call the real platform, with the key in FAL_KEY."),
    ] = None,
) -> None:
    """Watch all ways to call a model, and its files come and go, on an emulated platform."""
    require_modules("PIL", "starlette", "uvicorn")
    from fal_async.cli._demo.command import run_demo

    run_demo(prompt=prompt, image=image, filter_name=filter_name, out=out, live=live)


@app.command()
def emulate(
    *,
    port: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, max=65535, help="0 takes a free one.")
    ] = 8000,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    runners: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:ATTRIBUTE",
            help="What to serve: an Emulator, a function of one, or a mapping of ids to runners.",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The API key; a new one if not given.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let web pages of this origin call; may be repeated."),
    ] = None,
) -> None:
    """Serve an emulated platform on this machine."""
    require_modules("starlette", "uvicorn")
    from fal_async.cli._emulate import emulate as serve

    serve(host, port, runners, key=key, allow_origins=allow_origin or ())


@app.command(rich_help_panel=_CALLS)
def run(
    endpoint: Endpoint,
    fields: Fields = None,
    *,
    document: Document = None,
    timeout: Timeout = None,
) -> None:
    """Call an endpoint directly, without the queue."""
    from fal_async.cli import _calls
    from fal_async.cli._calls import read_arguments

    _calls.call(_calls.run, endpoint, read_arguments(fields or (), document), timeout)


@app.command(rich_help_panel=_CALLS)
def subscribe(
    endpoint: Endpoint,
    fields: Fields = None,
    *,
    document: Document = None,
    timeout: Timeout = None,
) -> None:
    """Put a job into the queue and wait for it; Ctrl-C cancels it."""
    from fal_async.cli import _calls
    from fal_async.cli._calls import read_arguments

    _calls.call(_calls.subscribe, endpoint, read_arguments(fields or (), document), timeout)


@app.command(rich_help_panel=_CALLS)
def submit(endpoint: Endpoint, fields: Fields = None, *, document: Document = None) -> None:
    """Put a job into the queue and leave it there."""
    from fal_async.cli import _calls
    from fal_async.cli._calls import read_arguments

    _calls.call(_calls.submit, endpoint, read_arguments(fields or (), document))


@app.command(rich_help_panel=_CALLS)
def status(endpoint: Endpoint, request_id: RequestId) -> None:
    """Look how a job stands."""
    from fal_async.cli import _calls

    _calls.call(_calls.status, endpoint, request_id)


@app.command(rich_help_panel=_CALLS)
def result(endpoint: Endpoint, request_id: RequestId) -> None:
    """Wait for a job and take its output."""
    from fal_async.cli import _calls

    _calls.call(_calls.result, endpoint, request_id)


@app.command(rich_help_panel=_CALLS)
def cancel(endpoint: Endpoint, request_id: RequestId) -> None:
    """Cancel a job."""
    from fal_async.cli import _calls

    _calls.call(_calls.cancel, endpoint, request_id)
