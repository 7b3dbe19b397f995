"""`Once`: a callable for engines that process rows in several processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import anyio

from fal_async._client.client import AsyncClient
from fal_async._core.annotations import set_module
from fal_async._core.checks import is_one_of, whole_number
from fal_async._core.secrets import conceal
from fal_async._net.event_loops import PerLoop
from fal_async.batch.journal import Journal
from fal_async.batch.once import execute_once
from fal_async.batch.options import ONE_INPUT, BatchOptions
from fal_async.batch.postgres import without_password
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from fal_async._auth.credentials import KeyProvider
    from fal_async._config import Hosts
    from fal_async.batch.inputs import Row
    from fal_async.batch.options import Lost, Unsure

__all__ = ["Once"]


@set_module("fal_async")
class Once:
    """A callable that starts one job for each row, whoever calls it, however often.

    It can be pickled, and goes into Ray Data, Hugging Face datasets and Dask: each process and
    event loop gets a client of its own. When an engine executes a row again, because a worker was
    killed, the journal knows the job.

    Args:
        application: The endpoint id.
        journal: The path of the journal's file, or the URL of its database; several machines need
            a database.
        arguments: The columns of the arguments by name, or a function of the row that returns the
            arguments. ``None`` uses the row.
        into: The prefix of the new columns.
        errors: ``"column"`` writes an error into its column; ``"raise"`` raises it.
        concurrency: The most rows at once in each event loop; ``None`` is no limit.
        key: A function that returns the API key, and can be pickled; ``None`` uses the environment
            of each process. A key itself cannot be pickled.
        hosts: The base URLs; ``None`` reads the environment of each process.
        unsure: The treatment of rows for which a job may have been started; see
            `AsyncClient.batch`.
        lost: The treatment of results that are gone.
        attempts: The most jobs for one row.
        submit_options: Options of `AsyncClient.submit`, such as `priority`.

    Raises:
        InvalidRequestError: An argument is invalid.

    Example:
        >>> draw = fal_async.Once("demo/echo", journal=":memory:", arguments={"prompt": "text"})
        >>> async def main() -> None:
        ...     row = await draw({"text": "a cat"})
        ...     print(row["fal_output"])
        >>> anyio.run(main)
        {'prompt': 'a cat'}
    """

    def __init__(
        self,
        application: str,
        *,
        journal: Journal | str | os.PathLike[str],
        arguments: Mapping[str, str] | Callable[[Row], Mapping[str, Any]] | None = None,
        into: str = "fal_",
        errors: Literal["column", "raise"] = "column",
        concurrency: int | None = None,
        key: str | KeyProvider | None = None,
        hosts: Hosts | None = None,
        unsure: Unsure = "look",
        lost: Lost = "report",
        attempts: int = 3,
        **submit_options: Any,
    ) -> None:
        key = conceal(key)
        self._options = BatchOptions(
            application=application,
            arguments=arguments,
            unsure=unsure,
            lost=lost,
            attempts=attempts,
            submit_options=submit_options,
            **ONE_INPUT,
        )
        self._journal = (journal if isinstance(journal, Journal) else Journal(journal)).path
        if not isinstance(cast("object", into), str):
            raise InvalidRequestError(f"into must be text, got {into!r}")
        if not is_one_of(errors, ("column", "raise")):
            raise InvalidRequestError(f"errors must be 'column' or 'raise', got {errors!r}")
        self._into = into
        self._errors = errors
        self._concurrency = (
            None if concurrency is None else whole_number("concurrency", concurrency)
        )
        self._key = key
        self._hosts = hosts
        self._connect()

    def _connect(self) -> None:
        key, hosts, slots = self._key, self._hosts, self._concurrency
        self._clients = PerLoop(lambda: AsyncClient(key, hosts=hosts))
        self._slots = PerLoop(lambda: None if slots is None else anyio.Semaphore(slots))

    def __repr__(self) -> str:
        journal = without_password(self._journal)
        return f"Once({self._options.application!r}, journal={journal!r})"

    def __getstate__(self) -> dict[str, Any]:
        if not (self._key is None or callable(self._key)):
            raise InvalidRequestError(
                "cannot pickle a Once with a key: omit key, so that each process uses FAL_KEY, or "
                "pass a function that returns the key"
            )
        return {
            name: value for name, value in vars(self).items() if name not in {"_clients", "_slots"}
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    async def __call__(self, row: Row) -> dict[str, Any]:
        """Return the row with columns for output, request id, units and error.

        Args:
            row: The row.

        Raises:
            FalClientError: The job has failed and ``errors="raise"``, or no job can be started.
        """
        slots = self._slots.get()
        if slots is None:
            return await self._execute(row)
        async with slots:
            return await self._execute(row)

    async def map(self, row: Row) -> dict[str, Any]:
        """Return the row with the new columns: the same as a coroutine function.

        Args:
            row: The row.
        """
        return await self(row)

    async def rows(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Return a batch of columns with the new columns, for engines that pass batches.

        Args:
            batch: The values of the rows by column.
        """
        names = list(batch)
        given = [
            dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)
        ]
        made: list[dict[str, Any]] = [{} for _ in given]

        async def execute(index: int, row: Row) -> None:
            made[index] = await self(row)

        async with anyio.create_task_group() as group:
            for index, row in enumerate(given):
                group.start_soon(execute, index, row)
        columns = list(made[0]) if made else names
        return {name: [row[name] for row in made] for name in columns}

    async def _execute(self, row: Row) -> dict[str, Any]:
        plain = {
            name: value.item() if getattr(value, "ndim", None) == 0 else value  # NumPy scalars
            for name, value in row.items()
        }
        dispatcher = self._clients.get()._dispatcher
        job = await execute_once(dispatcher, plain, self._journal, self._options)
        if job.error is not None and self._errors == "raise":
            raise job.error.to_error(str(self._options.application), job.request_id)
        return {
            **row,
            f"{self._into}output": job.output,
            f"{self._into}request_id": job.request_id,
            f"{self._into}units": job.units,
            f"{self._into}error": None if job.error is None else job.error.message,
        }
