"""Control of an emulator by other processes: counters, faults, the account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fal_async.emulator._credentials import EMPTY_BALANCE
from fal_async.emulator._fault_parser import parse_fault
from fal_async.emulator._hosts.base import Call, parse_called_id
from fal_async.emulator._json import decode_or_none
from fal_async.emulator._registry import parse_id
from fal_async.emulator._responses import RejectedError, error_response, json_response
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._state import PlatformState


class ControlHost:
    """Handles requests to ``/_emulator``, which the platform does not have."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform

    def classify(self, request: GatewayRequest) -> Call:
        """Classify a request as control."""
        return Call("control", parse_called_id(""))

    async def handle(self, request: GatewayRequest, call: Call) -> None:
        """Send the counters, or change faults or the account."""
        authorization = request.headers.get("authorization")
        accounts = self._platform.accounts
        if error := accounts.reject_reason(authorization, "_emulator", private=True):
            raise RejectedError(error)
        body: object = decode_or_none(request.body) if request.body else {}
        if not isinstance(body, dict):
            raise RejectedError(error_response(422, "the body must be a JSON object"))
        fields = cast("dict[str, Any]", body)
        result: dict[str, Any] = {}
        match request.method, request.location.path:
            case "GET", "counters":
                result = self.counters()
            case "POST", "faults":
                self.add_fault(fields)
            case "DELETE", "faults":
                self._platform.faults.clear()
            case "POST", "lock":
                after: object = fields.get("after", 0)
                if not isinstance(after, int) or after < 0:
                    raise RejectedError(error_response(422, "after must be a number of jobs"))
                accounts.main.lock(str(fields.get("reason", EMPTY_BALANCE)), after=after)
            case "POST", "unlock":
                accounts.main.unlock()
            case "POST", "reset":
                await self._platform.reset()
            case _:
                raise RejectedError(error_response(404, "Not Found"))
        await request.respond(json_response(200, result))

    def counters(self) -> dict[str, Any]:
        """Return the counters of all endpoints."""
        return {
            endpoint.id: {
                "executions": endpoint.counters.executions,
                "running": endpoint.counters.running,
                "queued": endpoint.counters.queued,
                "completed": endpoint.counters.completed,
                "cancelled": endpoint.counters.cancelled,
                "requests": endpoint.counters.requests,
            }
            for endpoint in self._platform.registry
        }

    def add_fault(self, fields: dict[str, Any]) -> None:
        """Schedule a fault."""
        try:
            endpoint_id, fault = parse_fault(fields)
            endpoint_id = endpoint_id and str(parse_id(endpoint_id))
        except InvalidRequestError as error:
            raise RejectedError(error_response(422, str(error))) from error
        self._platform.faults.add(endpoint_id, fault)
