"""Which of the platform's hosts a request is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

HostName: TypeAlias = Literal["run", "queue", "rest", "cdn", "ws"]

#: The first path segment, where all hosts share one origin.
_BY_PREFIX: dict[str, HostName] = {
    "run": "run",
    "queue": "queue",
    "rest": "rest",
    "cdn": "cdn",
    "ws": "ws",
}
#: The name in the ``Host`` header, where clients are pointed here by a hosts file.
_BY_NAME: dict[str, HostName] = {
    "fal.run": "run",
    "falrun.com": "run",
    "queue.fal.run": "queue",
    "queue.falrun.com": "queue",
    "rest.fal.ai": "rest",
    "rest.alpha.fal.ai": "rest",
    "v3.fal.media": "cdn",
    "v3b.fal.media": "cdn",
    "fal.media": "cdn",
    "ws.fal.run": "ws",
}


def locate(scheme: str, headers: Mapping[str, str], path: str) -> tuple[HostName | None, str, str]:
    """The host that is meant, its URL as the client knows it, and the path below it."""
    authority = headers.get("x-forwarded-host") or headers.get("host", "localhost")
    origin = f"{headers.get('x-forwarded-proto') or scheme}://{authority}"
    path = path.strip("/")
    if named := _BY_NAME.get(_name(authority)):
        return named, origin, path
    prefix, _, rest = path.partition("/")
    host = _BY_PREFIX.get(prefix)
    return host, f"{origin}/{prefix}", rest.strip("/")


def _name(authority: str) -> str:
    name, colon, port = authority.lower().rpartition(":")
    return name if colon and port.isdigit() else authority.lower()
