"""Scripted faults at work on the messages of a WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal_async.emulator._faults import Fault
    from fal_async.emulator._websocket import WebSocket


async def spoil(fault: Fault, websocket: WebSocket) -> bool:
    """Have the fault strike once so many more messages as it says have gone to the client.

    Returns:
        Whether that was at once, and has ended the connection.
    """
    due = websocket.sent + fault.after

    async def strike(sent: int) -> None:
        if sent != due:
            return
        await fault.wait()
        if fault.message is not None:
            await websocket.send(fault.message)
        await _end(fault, websocket)

    websocket.on_sent = strike
    if not websocket.is_open:  # it is still to be accepted
        return False
    await strike(websocket.sent)
    return not websocket.is_open


async def _end(fault: Fault, websocket: WebSocket) -> None:
    if fault.close is not None:
        await websocket.close(fault.close, str(fault.body or ""))
    elif fault.stall:
        websocket.fall_silent()
    elif fault.garbage is not None:
        await websocket.drop(fault.garbage, reset=fault.reset)
    elif fault.cut is not None:
        websocket.cut_after(fault.cut, reset=fault.reset)
