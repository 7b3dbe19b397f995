"""The base class of all exceptions: its text, its pickles and its JSON; `ErrorDetail`."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, cast

from fal_async._core.annotations import set_module
from fal_async._core.status import Completed, InProgress, Queued, Status, Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fal_async._core.status import Stage

__all__ = ["ErrorDetail", "FalClientError", "read_attribute"]

#: The only name in the object that stands for bytes in JSON.
BYTES: Final = "$base64"
_STATUSES: Final[Mapping[str, Callable[..., Status]]] = {
    cls.__name__: cls for cls in (Queued, InProgress, Completed, Unknown)
}


#: The module that the classes of errors show.
_PUBLIC: Final = "fal_async.errors"


@set_module(_PUBLIC)
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

    @property
    def final(self) -> bool:
        """Whether the same call fails again until its arguments, the key or the account change."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON values, for `fal_async.errors.from_dict`.

        ``type`` is the name of the class, ``message`` the text for people, and the attributes have
        their own names. Response headers are left out.

        Example:
            >>> error = fal_async.NotFoundError("no such request", 404)
            >>> error.to_dict()["type"], error.to_dict()["final"]
            ('NotFoundError', True)
        """
        public = (cls.__name__ for cls in type(self).__mro__ if cls.__module__ == _PUBLIC)
        facts: dict[str, Any] = {
            "type": next(public),
            "message": str(self),
            "stage": self.stage,
            "started": self.started,
            "final": self.final,
        }
        if self.args != (facts["message"],):
            facts["args"] = _to_json(self.args)
        for name, value in vars(self).items():
            if name[0] != "_" and name != "response_headers":
                facts[name] = _to_json(value)
        return facts

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


@set_module(_PUBLIC)
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


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return {BYTES: b64encode(value).decode()}
    if isinstance(value, Status):
        return {"type": type(value).__name__, **_to_json(asdict(value))}
    if isinstance(value, ErrorDetail):
        value = asdict(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        return {str(name): _to_json(item) for name, item in items.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in cast("Sequence[object]", value)]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def read_attribute(name: str, value: Any) -> Any:
    """Return the attribute of an error from the value that `FalClientError.to_dict` gives it.

    Raises:
        TypeError, ValueError, LookupError: The value is not of an attribute with this name.
    """
    match name:
        case "details":
            details = [{**each, "loc": tuple(each["loc"])} for each in value]
            return tuple(ErrorDetail(**cast("dict[str, Any]", fields)) for fields in details)
        case "last_status" if value is not None:
            fields = dict(value)
            return _STATUSES[fields.pop("type")](**fields)
        case "uncancelled" | "args":
            return tuple(_restore_bytes(value))
        case _:
            return _restore_bytes(value)


def _restore_bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_restore_bytes(item) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    items = cast("dict[str, Any]", value)
    if items.keys() == {BYTES} and isinstance(items[BYTES], str):
        return b64decode(items[BYTES], validate=True)
    return {name: _restore_bytes(item) for name, item in items.items()}
