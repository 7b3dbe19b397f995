"""How a runner says no."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fal_async.emulator._replies import Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AppError"]


class AppError(Exception):
    """Raised by a runner to answer with an error of its choice.

    Attributes:
        status: The HTTP status.
        detail: A text, or a list of problems with the input, or any other JSON value.
        headers: More headers of the reply.
        error_type: The platform's name for the error, sent as ``X-Fal-Error-Type``, too; ``None``
            leaves it out.

    Example:
        >>> even = {"loc": ["body", "seed"], "msg": "must be even", "type": "value_error"}
        >>> AppError(422, [even]).status
        422
    """

    def __init__(
        self,
        status: int,
        detail: Any = "",
        *,
        headers: Mapping[str, str] | None = None,
        error_type: str | None = None,
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers: dict[str, str] = dict(headers or {})
        self.error_type = error_type

    def reply(self) -> Reply:
        """The reply that it stands for."""
        body = {"detail": self.detail}
        headers = self.headers
        if self.error_type is not None:
            body["error_type"] = self.error_type
            headers = {**headers, "x-fal-error-type": self.error_type}
        return json_reply(self.status, body, headers)
