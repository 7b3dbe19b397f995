"""Cassettes: recorded requests and responses in a JSON file, binary content in files beside it."""

from __future__ import annotations

import hashlib
import json
import mimetypes
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fal_async.emulator._json import decode
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["Cassette", "Interaction"]

_VERSION: Final = 1
#: Methods whose last response is repeated when there are no more.
_REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT"})


@dataclass(slots=True, kw_only=True)
class Interaction:
    """A request, and the response that was recorded.

    Attributes:
        method: The HTTP method.
        url: The URL, with the host of the real platform and without credentials.
        range: The ``Range`` header. ``None`` if there was none.
        content: The body of the request.
        status: The HTTP status of the response.
        headers: The headers of the response, names in lower case.
        delay: The time from the request to the response, in seconds.
        chunks: The body of the response: the frames of a stream, or one chunk, each with the time
            since the one before, in seconds.
    """

    method: str
    url: str
    range: str | None = None
    content: bytes = b""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    delay: float = 0.0
    chunks: list[tuple[float, bytes]] = field(default_factory=list[tuple[float, bytes]])

    @property
    def media_type(self) -> str:
        """The media type of the response; ``""`` if there is none."""
        return self.headers.get("content-type", "").partition(";")[0]

    @property
    def is_text(self) -> bool:
        """True if the response is a text, which may contain addresses."""
        return self.media_type.startswith("text/") or "json" in self.media_type

    @property
    def key(self) -> tuple[str, str, str | None, str]:
        """The parts of the request by which it is found. JSON is compared by its value."""
        try:
            content = json.dumps(decode(self.content), sort_keys=True).encode()
        except ValueError:
            content = self.content
        return self.method, self.url, self.range, hashlib.sha256(content).hexdigest()


class Cassette:
    """The interactions of one recording, in the order of the requests.

    Args:
        path: The path of the JSON file. Binary content is in the directory of the same name with
            the suffix ``.files``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.interactions: list[Interaction] = []
        self._files = path.with_suffix(".files")
        self._by_key: dict[tuple[str, str, str | None, str], list[Interaction]] = defaultdict(list)

    def save(self, secrets: Iterable[str]) -> None:
        """Write the cassette.

        Args:
            secrets: Texts that must not be written, wherever they occur.

        Raises:
            OSError: A file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entries = [
            {
                "request": {
                    "method": each.method,
                    "url": each.url,
                    **({} if each.range is None else {"range": each.range}),
                    **self._encode(each.content, each.url),
                },
                "response": {
                    "status": each.status,
                    "headers": each.headers,
                    "delay": round(each.delay, 3),
                    "chunks": [
                        {"delay": round(delay, 3), **self._encode(chunk, each.url, each.media_type)}
                        for delay, chunk in each.chunks
                    ],
                },
            }
            for each in self.interactions
        ]
        document = {"version": _VERSION, "interactions": entries}
        text = json.dumps(document, indent=2, ensure_ascii=False)
        for secret in secrets:
            text = text.replace(json.dumps(secret, ensure_ascii=False)[1:-1], "<secret>")
        self.path.write_text(f"{text}\n", "utf-8")

    def load(self) -> None:
        """Read the cassette.

        Raises:
            InvalidRequestError: The file cannot be read, or is no cassette.
        """
        try:
            document = json.loads(self.path.read_text("utf-8"))
            if document["version"] != _VERSION:
                raise InvalidRequestError(
                    f"the version of {self.path} must be {_VERSION}, got {document['version']!r}"
                )
            for entry in document["interactions"]:
                request, response = entry["request"], entry["response"]
                interaction = Interaction(
                    method=request["method"],
                    url=request["url"],
                    range=request.get("range"),
                    content=self._decode(request),
                    status=response["status"],
                    headers=response["headers"],
                    delay=response["delay"],
                    chunks=[(each["delay"], self._decode(each)) for each in response["chunks"]],
                )
                self.interactions.append(interaction)
                self._by_key[interaction.key].append(interaction)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InvalidRequestError):
                raise
            reason = error.strerror if isinstance(error, OSError) else error
            raise InvalidRequestError(
                f"cannot read the cassette {self.path}: {reason}; Emulator.record makes one"
            ) from error

    def find(self, request: Interaction) -> Interaction | None:
        """Return the next recorded response to a request; the last one again where that is safe."""
        found = self._by_key.get(request.key)
        if not found:
            return None
        if len(found) == 1 and request.method in _REPEATABLE:
            return found[0]
        return found.pop(0)

    def _encode(self, content: bytes, url: str, media_type: str = "") -> dict[str, Any]:
        """Return content as JSON, as text, or as the name of a file in which it is written."""
        if not content:
            return {}
        try:
            return {"json": decode(content)}
        except ValueError:
            pass
        try:
            return {"text": content.decode()}
        except UnicodeDecodeError:
            pass
        name = url.partition("?")[0].rpartition("/")[2]
        suffix = f".{name.rpartition('.')[2]}" if "." in name else ""
        suffix = suffix or mimetypes.guess_extension(media_type) or ".bin"
        file = self._files / f"{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
        self._files.mkdir(exist_ok=True)
        file.write_bytes(content)
        return {"file": file.name}

    def _decode(self, entry: Mapping[str, Any]) -> bytes:
        if "json" in entry:
            return json.dumps(entry["json"], ensure_ascii=False, separators=(",", ":")).encode()
        if "file" in entry:
            return (self._files / str(entry["file"])).read_bytes()
        return str(entry.get("text", "")).encode()
