"""Which of the platform's hosts a request is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

HostName: TypeAlias = Literal["run", "queue", "rest", "cdn", "ws"]

#: The first path segment, where all hosts share one origin.
_BY_PREFIX: dict[str, HostName] = {
    "run": "run",
    "queue": "queue",
    "rest": "rest",
    "cdn": "cdn",
    "ws": "ws",
}
#: The name in the URL, where clients are led here by a hosts file.
_BY_NAME: dict[str, HostName] = {
    "fal.run": "run",
    "falrun.com": "run",
    "queue.fal.run": "queue",
    "queue.falrun.com": "queue",
    "rest.fal.ai": "rest",
    "rest.alpha.fal.ai": "rest",
    "fal.media": "cdn",
    "v3.fal.media": "cdn",
    "v3b.fal.media": "cdn",
    "ws.fal.run": "ws",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the platform a URL leads.

    Attributes:
        host: The host; ``None`` when it leads nowhere.
        base: The URL of the host, in the style in which the client knows it.
        path: The path below the host, without slashes at its ends.
    """

    host: HostName | None
    base: str
    path: str


def locate(scheme: str, authority: str, path: str) -> Place:
    """The place of a URL: by its name if that is the platform's own, else by its first segment."""
    origin = f"{scheme}://{authority}"
    path = path.strip("/")
    if named := _BY_NAME.get(_without_port(authority.lower())):
        return Place(named, origin, path)
    prefix, _, rest = path.partition("/")
    return Place(_BY_PREFIX.get(prefix), f"{origin}/{prefix}", rest.strip("/"))


def cdn_base(place: Place) -> str:
    """The URL of the CDN, in the style in which the client came to another host."""
    scheme, _, rest = place.base.partition("://")
    authority, slash, _ = rest.partition("/")
    if slash:
        return f"{scheme}://{authority}/cdn"
    name = _without_port(authority)
    return f"{scheme}://v3.fal.media{authority.removeprefix(name)}"


def _without_port(authority: str) -> str:
    name, colon, port = authority.rpartition(":")
    return name if colon and port.isdigit() else authority
