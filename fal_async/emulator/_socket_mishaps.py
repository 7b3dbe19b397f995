"""Scripted faults at work on a WebSocket that was accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal_async.emulator._faults import Fault
    from fal_async.emulator._websocket import WebSocket


def spoil(fault: Fault, websocket: WebSocket) -> None:
    """Have the fault strike once so many messages as it says have gone to the client."""

    async def strike(sent: int) -> None:
        if sent != fault.after:
            return
        await fault.wait()
        if fault.message is not None:
            await websocket.send(fault.message)
        await _end(fault, websocket)

    websocket.on_sent = strike


async def _end(fault: Fault, websocket: WebSocket) -> None:
    if fault.close is not None:
        await websocket.close(fault.close, str(fault.body or ""))
    elif fault.stall:
        websocket.fall_silent()
    elif fault.garbage is not None:
        await websocket.drop(fault.garbage, reset=fault.reset)
    elif fault.cut is not None:
        websocket.cut_after(fault.cut, reset=fault.reset)
