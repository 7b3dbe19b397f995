"""`BatchMixin`: the calls for many jobs, and for jobs that are started once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._protocol.endpoint import parse_endpoint

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from decimal import Decimal
    from pathlib import Path
    from typing import Any, Literal

    from typing_extensions import TypeVar

    from fal_async._client.result import Result
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.batch.batch import Batch
    from fal_async.batch.inputs import Inputs, Row
    from fal_async.batch.jobs import Job, Progress
    from fal_async.batch.journal import Journal
    from fal_async.batch.options import Budget, Changed, Duplicates, Lost, OnStop, Unsure

    T = TypeVar("T", default=Result)

__all__ = ["BatchMixin"]


class BatchMixin:
    """Calls for many jobs, and for jobs that are started once."""

    _dispatcher: Dispatcher

    async def once(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        journal: Journal | str | os.PathLike[str],
        key: str | None = None,
        unsure: Unsure = "look",
        lost: Lost = "report",
        attempts: int = 3,
        output: type[T] | None = None,
        **submit_options: Any,
    ) -> T:
        """Return the output of a job that is started once, however often this is called.

        A job that the journal knows is waited for, and an output that it knows is returned.
        Cancelling the call leaves the job to the next call.

        Args:
            application: The endpoint id.
            arguments: The input.
            journal: A shared `Journal`, the path of its file or the URL of its database. A path is
                kept open until the event loop ends.
            key: Identifies the input; ``None`` uses the content.
            unsure: The treatment of an input for which a job may have been started; see
                `AsyncClient.batch`.
            lost: The treatment of a result that is gone: ``"report"`` raises `NotFoundError`, and
                ``"again"`` starts another job.
            attempts: The most jobs that are started, after errors that may pass.
            output: The type that the output is validated against; ``None`` returns a `Result`.
            submit_options: Options of `submit`, such as `priority`.

        Raises:
            FalClientHTTPError: The job was rejected, or has failed.
            SubmitOutcomeUnknownError: A job may have been started, and cannot be found.
            JournalError: The journal cannot be used; nothing was sent that it does not record.
            ChangedInputError: The key is that of an input with another content.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.AsyncClient() as client:
            ...         for _ in range(2):
            ...             result = await client.once(
            ...                 "demo/echo", {"prompt": "a cat"}, journal=":memory:"
            ...             )
            ...     print(result["prompt"])
            >>> anyio.run(main)
            a cat
        """
        from fal_async.batch.once import fetch_once  # most programs do without
        from fal_async.batch.options import ONE_INPUT, BatchOptions

        options = BatchOptions(
            application=str(parse_endpoint(application)),
            key=None if key is None else (lambda _: key),
            unsure=unsure,
            lost=lost,
            attempts=attempts,
            submit_options=submit_options,
            **ONE_INPUT,
        )
        return await fetch_once(self._dispatcher, arguments, journal, options, output)

    def batch(
        self,
        application: str | Callable[[Row], str],
        inputs: Inputs,
        *,
        journal: Journal | str | os.PathLike[str] | None = None,
        output: str | os.PathLike[str] | None = None,
        save: str | Callable[[Job, int], Path] | None = None,
        arguments: Mapping[str, str] | Callable[[Row], Mapping[str, Any]] | None = None,
        in_flight: int | Literal["auto"] = "auto",
        submitting: int | Literal["auto"] = "auto",
        via: Literal["queue", "run"] = "queue",
        wait: Literal["auto", "webhook"] = "auto",
        webhook_url: str | None = None,
        ordered: bool = False,
        ready: int = 100,
        attempts: int = 3,
        budget: float | Budget | None = None,
        price: float | Decimal | None = None,
        stop_after: int | float | None = 0.5,
        on_stop: OnStop = "leave",
        grace: float = 30.0,
        key: str | Callable[[Row], str] | None = None,
        duplicates: Duplicates = "each",
        changed: Changed = "error",
        unsure: Unsure = "look",
        lost: Lost = "report",
        progress: bool | Callable[[Progress], None] = False,
        upload_once: bool = True,
        **submit_options: Any,
    ) -> Batch:
        """Start a job for each input, once, and iterate over the outcomes as the jobs end.

        With a journal, a batch that was interrupted continues where it was: jobs that run are
        waited for, outcomes that are known are repeated, and nothing is started twice. The jobs run
        while the context of the batch is entered.

        Args:
            application: The endpoint id, or a function of the input that returns it.
            inputs: The inputs: mappings, read lazily, or the path of a file with JSON lines, CSV or
                Parquet.
            journal: A `Journal`, the path of its file or the URL of its database; ``None`` keeps
                none.
            output: The path of a file of JSON lines, with a row for each input; ``None`` writes
                none.
            save: Where the files of outputs are saved: a pattern with ``{index}``, the number
                ``{n}`` of the file, ``{ext}``, ``{key}``, ``{request_id}`` and columns, or a
                function of the job and the number. ``None`` saves none.
            arguments: The columns of the arguments by name, or a function of the input that returns
                the arguments; ``None`` uses the input.
            in_flight: The most jobs that have started and not ended. ``"auto"`` is twice the number
                that runs at once; with ``via="run"``, it adapts to the limit of the account.
            submitting: The most jobs that are being submitted, and so the most that are unsure
                after a crash. ``"auto"`` is eight, and up to 64 if the platform responds slowly and
                the account would be idle otherwise.
            via: ``"queue"`` submits jobs; ``"run"`` calls apps directly.
            wait: ``"auto"`` waits for jobs on connections to the platform. ``"webhook"`` waits for
                the journal, in which a `fal_async.webhooks.BatchReceiver` records outcomes. What
                has not come after twice the time that the longest job took is asked for.
            webhook_url: The URL of the receiver, with ``wait="webhook"``. The batch appends the key
                of the input.
            ordered: Whether outcomes, and the rows that a run appends to `output`, have the order
                of the inputs.
            ready: The most outcomes that wait for the consumer. Then no more jobs are started.
            attempts: The most jobs for one input. Others are started only after errors that may
                pass.
            budget: The most that the batch may cost; ``None`` is no limit. A job is not started if
                it would exceed it. It and those in flight are counted at the mean cost so far, or
                at the price of a unit before a cost is known.
            price: The price of a unit; ``None`` asks the platform.
            stop_after: The number of failures, or their share among the latest 200 outcomes, at
                which the batch stops; ``None`` never stops.
            on_stop: The treatment of jobs in flight when the batch is stopped: ``"leave"`` waits
                for the grace period and leaves them to the next run, ``"wait"`` waits for all, and
                ``"cancel"`` cancels them, so that the next run starts others.
            grace: The grace period, in seconds.
            key: The column that identifies an input, or a function of the input; ``None`` uses the
                content, so that inputs may be moved.
            duplicates: ``"each"`` starts a job for each of several equal inputs, ``"once"`` one for
                all, and ``"error"`` raises.
            changed: The treatment of inputs that have another content under the same key:
                ``"error"`` raises, ``"new"`` starts other jobs, and ``"keep"`` keeps the outcomes.
            unsure: The treatment of inputs for which a job may have been started: ``"look"`` asks
                the platform for its requests, ``"report"`` yields them, and ``"again"`` starts
                another job, which may be charged twice.
            lost: The treatment of results that are gone: ``"report"`` yields them, and ``"again"``
                starts another job.
            progress: Whether to show the progress, or a function that is called with it.
            upload_once: Whether files in the arguments with the same content are uploaded once, for
                all inputs and all runs with the journal, for as long as they are stored. Otherwise
                they are uploaded for each job.
            submit_options: Options of `submit`, such as `priority` and `tags`.

        Raises:
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     rows = [{"prompt": "a cat"}, {"prompt": "a fox"}]
            ...     async with fal_async.AsyncClient() as client:
            ...         async with client.batch("demo/echo", rows, ordered=True) as batch:
            ...             async for job in batch:
            ...                 print(job.index, job.output["prompt"])
            >>> anyio.run(main)
            0 a cat
            1 a fox
        """
        from fal_async.batch.batch import Batch  # most programs do without
        from fal_async.batch.options import BatchOptions

        return Batch(
            self._dispatcher,
            inputs,
            journal,
            BatchOptions(
                application=application,
                output=output,
                save=save,
                arguments=arguments,
                in_flight=in_flight,
                submitting=submitting,
                via=via,
                wait=wait,
                webhook_url=webhook_url,
                ordered=ordered,
                ready=ready,
                attempts=attempts,
                budget=budget,
                price=price,
                stop_after=stop_after,
                on_stop=on_stop,
                grace=grace,
                key=key,
                duplicates=duplicates,
                changed=changed,
                unsure=unsure,
                lost=lost,
                progress=progress,
                upload_once=upload_once,
                submit_options=submit_options,
            ),
        )
