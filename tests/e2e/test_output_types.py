"""Output types: invalid ones are refused before the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from fal_async import AsyncClient, InvalidRequestError

if TYPE_CHECKING:
    from fal_async.emulator import Emulator

ECHO = "acme/echo"
NO_TYPE = cast("type[Any]", 7)


async def test_invalid_output_type_starts_no_job(fal: Emulator, client: AsyncClient) -> None:
    @fal.endpoint(ECHO)
    def echo(arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    for call in (client.run, client.subscribe):
        with pytest.raises(InvalidRequestError, match="output must be a type"):
            await call(ECHO, {}, output=NO_TYPE)
    with pytest.raises(InvalidRequestError):
        client.stream(ECHO, {}, output=NO_TYPE)
    assert fal.counters(ECHO).executions == 0


async def test_invalid_output_type_keeps_the_result(fal: Emulator, client: AsyncClient) -> None:
    @fal.endpoint(ECHO)
    def echo(arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    handle = await client.submit(ECHO, {"n": 1})
    with pytest.raises(InvalidRequestError):
        await handle.get(output=NO_TYPE)
    assert await handle.get() == {"n": 1}
