"""The base class of all exceptions: its text, its pickles; the details of HTTP errors."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 -- pydantic reads the fields of dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from fal_async._core.annotations import set_module

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from fal_async._core.status import Stage

__all__ = ["ErrorDetail", "FalClientError", "make_httpx_response"]


@set_module("fal_async.errors")
class FalClientError(Exception):
    """The base class of all errors that the library raises.

    Attributes:
        stage: The stage of the call that failed. ``"upload"``: the upload of files, including files
            in arguments. ``"submit"``: the submission of a job. ``"wait"``: the wait for a job in
            the queue. ``"job"``: the job itself, which runs while `run` and `stream` wait, or has
            failed. ``"result"``: the download or validation of an output. ``"download"``: the
            download of a file. ``None`` if none of these applies.
        started: Whether a job was started, by this call or before it; ``None`` if that is unknown.
            If it is false, the call can be repeated and is not charged twice.
    """

    stage: Stage | None = None
    started: bool | None = None

    def __str__(self) -> str:
        # The text of a peer may hold lone surrogates, which logs and terminals cannot encode.
        return self._describe().encode(errors="backslashreplace").decode()

    def _describe(self) -> str:
        return super().__str__()

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[tuple[Any, ...], dict[str, Any]]]:
        return self._unpickle, (self.args, self.__dict__.copy())

    def _render_traceback_(self) -> list[str]:
        from fal_async._core.notebook import render_traceback  # only IPython calls this

        return render_traceback(self)

    @classmethod
    def _unpickle(cls, args: tuple[Any, ...], attributes: dict[str, Any]) -> Self:
        error = cls.__new__(cls, *args)
        error.args = args
        error.__dict__.update(attributes)
        return error


@set_module("fal_async.errors")
@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetail:
    """One validation error of a model's input.

    Attributes:
        message: The error message, for people.
        type: The kind of error, for programs, such as ``"image_too_small"``.
        loc: The location in the input, such as ``("body", "image_url")``.
        ctx: The values of the violated limit, such as ``{"min_width": 64}``.
        url: The page that documents the kind of error, or ``None``.
    """

    message: str
    type: str
    loc: tuple[str | int, ...] = ()
    ctx: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    url: str | None = None


def make_httpx_response(
    status_code: int, headers: Mapping[str, str], body: Any, *, text: str
) -> httpx.Response:
    """Return a response of httpx with a decoded body. It has no request.

    Args:
        status_code: The HTTP status.
        headers: The response headers.
        body: Decoded JSON, text, or ``None``.
        text: The text of a response without a body.
    """
    import httpx  # slower to import than this package; a value, so no input or output

    transfer_headers = {"content-encoding", "content-length", "transfer-encoding"}
    kept = {name: value for name, value in headers.items() if name.lower() not in transfer_headers}
    if isinstance(body, str) or body is None:
        return httpx.Response(status_code, headers=kept, text=body or text)
    return httpx.Response(status_code, headers=kept, json=body)
