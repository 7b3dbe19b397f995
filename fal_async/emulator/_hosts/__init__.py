"""The hosts of the platform, one module each."""

from __future__ import annotations

from fal_async.emulator._hosts.base import Call, Host, parse_called_id
from fal_async.emulator._hosts.cdn import CdnHost
from fal_async.emulator._hosts.control import ControlHost
from fal_async.emulator._hosts.platform import PlatformHost
from fal_async.emulator._hosts.queue import QueueHost
from fal_async.emulator._hosts.rest import RestHost
from fal_async.emulator._hosts.run import RunHost, WebSocketHost
from fal_async.emulator._hosts.ws import WebSocketHTTPHost

__all__ = [
    "Call",
    "CdnHost",
    "ControlHost",
    "Host",
    "PlatformHost",
    "QueueHost",
    "RestHost",
    "RunHost",
    "WebSocketHTTPHost",
    "WebSocketHost",
    "parse_called_id",
]
