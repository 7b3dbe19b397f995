"""Recording of a platform, and replay of a cassette, in the place of registered endpoints."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from fal_async._config import Hosts
from fal_async.emulator._cassettes.recording import Recording
from fal_async.emulator._cassettes.replay import Replay
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._request import Responder
    from fal_async.emulator._server.http import Server
    from fal_async.emulator._state import PlatformState

__all__ = ["CassetteInUse", "CassettesMixin"]


class CassetteInUse:
    """A cassette that is recorded or replayed, until `close` or the end of a ``with`` block."""

    def __init__(self, platform: PlatformState, server: Server, current: Responder) -> None:
        self._platform = platform
        self._server = server
        self._current = current

    def close(self) -> None:
        """Stop to record or replay; write the cassette if it was recorded.

        Raises:
            OSError: The cassette cannot be written.
        """
        if self._platform.cassette is self._current:
            self._platform.cassette = None
            self._server.call(self._current.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class CassettesMixin:
    """Records and replays the traffic of an `Emulator` with another platform."""

    _platform: PlatformState
    _server: Server | None
    _cassette: CassetteInUse | None = None

    def record(
        self, path: str | os.PathLike[str], *, hosts: Hosts | None = None, key: str | None = None
    ) -> CassetteInUse:
        """Record the responses of another platform to requests for endpoints not registered here.

        The requests are forwarded, which costs what they cost there. The cassette contains no key,
        no token and no signature of a URL; binary content is in files beside it. The arguments of
        calls and their outputs are recorded as they are. WebSockets are not recorded. The cassette
        is written at the end of the ``with`` block, by ``close()``, or when the emulator stops.

        Args:
            path: The path of the cassette, a JSON file. An existing one is replaced.
            hosts: The base URLs of the platform, such as those of another emulator. ``None`` for
                the real platform.
            key: The key for the platform. ``None`` uses ``FAL_KEY``.

        Raises:
            InvalidRequestError: There is no key.
            RuntimeError: The emulator has not started, or has a cassette in use.
        """
        own, upstream = self._platform.accounts.main.key, self._platform.upstream_key()
        key = key or upstream or os.environ.get("FAL_KEY")
        if not key or key == own:
            raise InvalidRequestError("key must be the key for the recorded platform, got none")
        hosts = hosts or Hosts()
        with contextlib.suppress(OSError):  # the first request will show it
            # In this thread, where a refusal of real hosts fails the test.
            socket.getaddrinfo(urlsplit(hosts.run).hostname, None)
        return self._use(partial(Recording, Path(path), hosts, key))

    def replay(self, path: str | os.PathLike[str], *, pace: float = 1.0) -> CassetteInUse:
        """Replay a cassette that `record` made, for endpoints that are not registered here.

        A request gets the next response that was recorded for its method, URL and body, events and
        statuses with their pace. Requests that can be repeated get the last one again; for others,
        the response is a 404. It ends as a recording does.

        Args:
            path: The path of the cassette.
            pace: The factor of all delays; 0 disables them.

        Raises:
            InvalidRequestError: The cassette cannot be read.
            RuntimeError: The emulator has not started, or has a cassette in use.
        """
        return self._use(partial(Replay, Path(path), pace))

    def _use(self, make: Callable[[], Responder]) -> CassetteInUse:
        if self._server is None:
            raise RuntimeError("cannot use a cassette before the emulator has started")
        if self._platform.cassette is not None:
            raise RuntimeError("cannot use two cassettes at once: close the other one")
        self._platform.cassette = current = make()
        self._cassette = CassetteInUse(self._platform, self._server, current)
        return self._cassette

    def _close_cassette(self) -> None:
        if self._cassette is not None:
            self._cassette.close()
