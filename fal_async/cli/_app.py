"""The commands and their options."""

from __future__ import annotations

import sys
from collections.abc import Sequence  # noqa: TC003 -- `main` is public: its hints can be resolved
from pathlib import Path
from typing import Annotated, Final

import typer

from fal_async import __version__
from fal_async.cli._batch_app import batch
from fal_async.cli._errors import UsageError, require_modules

__all__ = ["execute"]

#: The base of the errors about options, wherever this version of typer keeps it.
_UsageError: Final[type[Exception]] = typer.BadParameter.__bases__[0]
_PROMPT: Final = "a cat watching the moon rise over the sea"
_CALLS: Final = "Calls, with the key in FAL_KEY"

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The async-native client for fal.ai, and an emulated platform to try it on.",
    rich_markup_mode="rich",
)
app.add_typer(batch, name="batch", rich_help_panel=_CALLS)

Endpoint = Annotated[
    str, typer.Argument(metavar="ENDPOINT", help="The id of the endpoint, such as fal-ai/flux/dev.")
]
JobHandle = Annotated[
    str | None,
    typer.Argument(
        metavar="[ENDPOINT|HANDLE|@FILE|-]",
        help="The endpoint of the job, or the handle that submit printed; stdin by default.",
    ),
]
RequestId = Annotated[str | None, typer.Argument(metavar="[REQUEST_ID]", help="The id of the job.")]
Fields = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=TEXT|KEY:=JSON|KEY=@FILE]...",
        help="The arguments of the model; files are uploaded.",
    ),
]
Document = Annotated[
    str | None,
    typer.Option("--input", "-i", metavar="JSON|@FILE|-", help="Arguments, as a JSON object."),
]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="The deadline of the call; none by default.")
]

Save = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Save the files of the output in this folder."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Write nothing but errors to stderr.")]
Events = Annotated[bool, typer.Option("--json", help="Print events, one JSON object a line.")]


def execute(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name, or show the help, and return the exit status.

    Raises:
        UsageError: The arguments are invalid.
        KeyboardInterrupt: The keyboard interrupted the command.
    """
    command = typer.main.get_command(app)
    program = "fal-async"
    try:
        exit_status: int | None = command.main(
            list(arguments) or ["--help"], prog_name=program, standalone_mode=False
        )
    except _UsageError as error:
        raise UsageError(getattr(error, "format_message", error.__str__)()) from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    return exit_status or 0


def _print_version(wanted: bool) -> None:  # noqa: FBT001 -- typer passes it by position
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
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="The prompt of the image.")] = _PROMPT,
    image: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="An image to upload instead of a generated one."),
    ] = None,
    filter_name: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="NAME",
            help="The filter to apply: duotone, mosaic, poster or none.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="PATH", help="The image file to write.")] = Path(
        "fal_async_demo.png"
    ),
    live: Annotated[
        str | None,
        typer.Option(metavar="ENDPOINT", help="Call the real platform, with the key in FAL_KEY."),
    ] = None,
) -> None:
    """Show every way to call an endpoint, and its files, on an emulated platform."""
    require_modules("PIL", "rich_pixels", "starlette", "uvicorn")
    from fal_async.cli._demo import run_demo

    run_demo(prompt=prompt, image=image, filter_name=filter_name, out=out, live=live)


@app.command()
def emulate(
    *,
    port: Annotated[
        int,
        typer.Option(
            metavar="NUMBER", min=0, max=65535, help="The port to listen on; 0 selects a free one."
        ),
    ] = 8000,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on.")
    ] = "127.0.0.1",
    runners: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:ATTRIBUTE",
            help="An Emulator, a function of one, or a mapping of ids to runners.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="The API key to accept; generated by default."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="An origin of web pages that may call; may be repeated."
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, help="The most runs at a time; no limit by default."),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE,...",
            help="A fault, such as route=submit,status=503,share=0.2; may be repeated.",
        ),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The address of clients, such as http://fal:8000."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Write each request to stderr.")
    ] = False,
) -> None:
    """Serve an emulated platform on this machine."""
    require_modules("starlette", "uvicorn")
    from fal_async.cli._emulate import emulate as serve

    serve(
        host,
        port,
        runners,
        key=key,
        allow_origins=allow_origin or (),
        concurrency=concurrency,
        faults=fault or (),
        public_url=public_url,
        verbose=verbose,
    )


@app.command(rich_help_panel=_CALLS)
def run(
    endpoint: Endpoint,
    fields: Fields = None,
    *,
    document: Document = None,
    timeout: Timeout = None,
    save: Save = None,
    quiet: Quiet = False,
    events: Events = False,
) -> None:
    """Call an endpoint directly, without the queue."""
    from fal_async.cli import _calls
    from fal_async.cli._input import read_arguments
    from fal_async.cli._output import Output

    arguments = read_arguments(fields or (), document)
    _calls.call(_calls.run, endpoint, arguments, timeout, Output(save, quiet, events))


@app.command(rich_help_panel=_CALLS)
def subscribe(
    endpoint: Endpoint,
    fields: Fields = None,
    *,
    document: Document = None,
    timeout: Timeout = None,
    save: Save = None,
    quiet: Quiet = False,
    events: Events = False,
) -> None:
    """Put a job into the queue and wait for it; Ctrl-C and SIGTERM cancel it."""
    from fal_async.cli import _calls
    from fal_async.cli._input import read_arguments
    from fal_async.cli._output import Output

    arguments = read_arguments(fields or (), document)
    _calls.call(_calls.subscribe, endpoint, arguments, timeout, Output(save, quiet, events))


@app.command(rich_help_panel=_CALLS)
def submit(
    endpoint: Endpoint,
    fields: Fields = None,
    *,
    document: Document = None,
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The URL that the platform calls when the job has ended."),
    ] = None,
) -> None:
    """Put a job into the queue and print its handle, for result, status and cancel."""
    from fal_async.cli import _calls
    from fal_async.cli._input import read_arguments

    _calls.call(_calls.submit, endpoint, read_arguments(fields or (), document), webhook)


@app.command(rich_help_panel=_CALLS)
def stream(
    endpoint: Endpoint,
    fields: Fields = None,
    *,
    document: Document = None,
    timeout: Timeout = None,
    path: Annotated[str, typer.Option(metavar="PATH", help="The path within the app.")] = "/stream",
) -> None:
    """Print the events of an app, one JSON value a line."""
    from fal_async.cli import _calls
    from fal_async.cli._input import read_arguments

    arguments = read_arguments(fields or (), document)
    _calls.call(_calls.stream, endpoint, arguments, timeout, path)


@app.command(rich_help_panel=_CALLS)
def realtime(
    endpoint: Endpoint,
    *,
    linger: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="The time without a message that ends the session."
        ),
    ] = 5.0,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Save binary values in this folder."),
    ] = None,
) -> None:
    """Send each line of stdin, a JSON value, to a realtime app, and print its messages."""
    from fal_async.cli import _calls

    _calls.call(_calls.realtime, endpoint, linger, save)


@app.command(rich_help_panel=_CALLS)
def status(job: JobHandle = None, request_id: RequestId = None) -> None:
    """Print the status of a job."""
    from fal_async.cli import _calls
    from fal_async.cli._input import read_handle

    _calls.call(_calls.status, read_handle(job, request_id))


@app.command(rich_help_panel=_CALLS)
def result(
    job: JobHandle = None,
    request_id: RequestId = None,
    *,
    save: Save = None,
    quiet: Quiet = False,
    events: Events = False,
) -> None:
    """Wait for a job and print its output; Ctrl-C leaves it running."""
    from fal_async.cli import _calls
    from fal_async.cli._input import read_handle
    from fal_async.cli._output import Output

    _calls.call(_calls.result, read_handle(job, request_id), Output(save, quiet, events))


@app.command(rich_help_panel=_CALLS)
def cancel(job: JobHandle = None, request_id: RequestId = None) -> None:
    """Cancel a job."""
    from fal_async.cli import _calls
    from fal_async.cli._input import read_handle

    _calls.call(_calls.cancel, read_handle(job, request_id))


@app.command(rich_help_panel=_CALLS)
def upload(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The files to upload.")],
    *,
    events: Events = False,
) -> None:
    """Upload files and print their URLs."""
    from fal_async.cli import _calls
    from fal_async.cli._output import Output

    _calls.call(_calls.upload, files, Output(events=events))


@app.command(rich_help_panel=_CALLS)
def download(
    urls: Annotated[list[str], typer.Argument(metavar="URL...", help="The URLs to download.")],
    *,
    folder: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="The folder to write to.")
    ] = Path(),
    events: Events = False,
) -> None:
    """Download files under their own names and print their paths."""
    from fal_async.cli import _calls
    from fal_async.cli._output import Output

    folder.mkdir(parents=True, exist_ok=True)
    _calls.call(_calls.download, urls, folder, Output(events=events))
