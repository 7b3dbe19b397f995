"""A server of the platform API that returns scripted documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import orjson

from tests.support.raw_server import RawServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.raw_server import RawConnection

Query = dict[str, str]


class PlatformApi(RawServer):
    """A server that returns a document for each path.

    Attributes:
        documents: Functions of the query that return a document, by path.
        queries: The path and the query of each request.
        keys: The Authorization header of each request.
    """

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.documents: dict[str, Callable[[Query], Any]] = {}
        self.queries: list[tuple[str, Query]] = []
        self.keys: list[str] = []

    def _respond(self, connection: RawConnection) -> None:
        while request := connection.request():
            head = request.decode("latin-1").split("\r\n")
            target = urlsplit(head[0].split()[1])
            query = dict(parse_qsl(target.query))
            self.queries.append((target.path, query))
            self.keys += [line for line in head if line.lower().startswith("authorization")]
            body = orjson.dumps(self.documents[target.path](query))
            status = b"200 OK" if b'"error"' not in body else b"404 Not Found"
            connection.send(
                b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                % (status, len(body)),
                body,
            )
