"""Statuses, storage settings, `Upload`, `WorkflowEvent`: values without behaviour."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Final,
    Literal,
    NamedTuple,
    Protocol,
    TypeAlias,
    get_args,
)

from fal_async._core.checks import check_instance, check_sequence, describe, is_one_of
from fal_async._core.status import (
    Completed,
    InProgress,
    LogLine,
    Queued,
    Stage,
    Status,
    Unknown,
)
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from os import PathLike

    from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

    Arguments: TypeAlias = Mapping[str, Any] | BaseModel

__all__ = [
    "AsyncFile",
    "Cancellation",
    "Completed",
    "ExtType",
    "InProgress",
    "LogLine",
    "ObjectExpiration",
    "Priority",
    "Queued",
    "Repository",
    "Stage",
    "Status",
    "StorageACL",
    "StorageACLDecision",
    "StorageACLRule",
    "StorageSettings",
    "Unknown",
    "Upload",
    "WorkflowEvent",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowEvent:
    """An event of a workflow's stream, for ``output=`` of `stream`. Its errors are `StreamError`.

    Attributes:
        type: ``"submit"`` when a step begins, ``"completion"`` when it has ended, ``"output"`` for
            the result of the whole workflow; other words as they come.
        node_id: The step, for the first two.
        app_id: The endpoint id of the step's app, for ``"submit"``.
        request_id: The id of the step's request, for ``"submit"``.
        output: What the step came to, or the whole workflow.

    Example:
        >>> WorkflowEvent(type="completion", node_id="draw", output={"seed": 7}).output
        {'seed': 7}
    """

    type: str
    node_id: str | None = None
    app_id: str | None = None
    request_id: str | None = None
    output: Any = None


#: The place in the queue. It can only be lowered.
Priority = Literal["normal", "low"]


#: How long an uploaded file lives: a name, or a number of seconds.
ObjectExpiration: TypeAlias = Literal["never", "immediate", "1h", "1d", "7d", "30d", "1y"] | int


#: What happens to who wants to read a file: it is given, refused, or looks as if it was not there.
StorageACLDecision = Literal["hide", "forbid", "allow"]


#: Where files are kept: ``"fal_v3"`` is the CDN, ``"fal"`` the storage service with presigned URLs.
#: ``"cdn"`` is an old name of the CDN.
Repository = Literal["fal_v3", "cdn", "fal"]


_LIVES: Final[Mapping[str, int | None]] = {
    "never": None,
    "immediate": 60,  # the platform takes 0 for no end
    "1h": 3600,
    "1d": 86_400,
    "7d": 604_800,
    "30d": 2_592_000,
    "1y": 31_536_000,
}


class ExtType(NamedTuple):
    """An extension of msgpack, in messages of realtime sessions: received, and sent.

    Timestamps, an extension of code -1, are received as `datetime.datetime` in UTC, and are an
    `ExtType` only where that is not as precise. ``msgpack.ExtType`` can be sent just as well.

    Attributes:
        code: The kind of extension, from -128 to 127. Those from 0 on are the app's, and only they
            can be sent.
        data: Its content.

    Example:
        >>> ExtType(42, b"abc").code
        42
    """

    code: int
    data: bytes


class Cancellation(str):
    """What the platform answered to a cancel call.

    One of ``"OK"`` (removed from the queue), ``"CANCELLATION_REQUESTED"`` (the runner was told, and
    may still finish) and ``"ALREADY_COMPLETED"`` (too late).
    """

    __slots__ = ()

    @property
    def accepted(self) -> bool:
        """Whether the job was removed or told to stop."""
        return self != "ALREADY_COMPLETED"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import core_schema  # who defines a model has it at hand

        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


@dataclass(frozen=True)
class StorageACLRule:
    """What one user may do with a file.

    Attributes:
        user: The user's nickname or id.
        decision: What the user may do.

    Raises:
        InvalidRequestError: There is no such decision.
    """

    user: str
    decision: StorageACLDecision

    def __post_init__(self) -> None:
        check_instance("user", self.user, str)
        _check_decision(self.decision)


@dataclass(frozen=True)
class StorageACL:
    """Who may read a file.

    Attributes:
        default: What holds for everyone without a rule; ``None`` leaves it to the platform, which
            lets everyone read who knows the URL.
        rules: What holds for single users; ``None`` for no rules.

    Raises:
        InvalidRequestError: There is no such decision.
    """

    default: StorageACLDecision | None = None
    rules: Sequence[StorageACLRule] | None = None

    def __post_init__(self) -> None:
        if self.default is not None:
            _check_decision(self.default)
        if self.rules is not None:
            check_sequence("rules", self.rules)
            for rule in self.rules:
                check_instance("a rule", rule, StorageACLRule)


@dataclass(frozen=True)
class StorageSettings:
    """How long an uploaded file lives, and who may read it.

    Attributes:
        expires_in: Its life: a number of seconds, or a name; ``"immediate"`` is about a minute, and
            ``"never"`` or ``None`` leaves it to the platform.
        initial_acl: Who may read it; ``None`` for everyone who knows the URL.

    Raises:
        InvalidRequestError: The life is none of the names and no positive whole number.

    Example:
        >>> StorageSettings(expires_in="1h", initial_acl=StorageACL(default="forbid")).expires_in
        '1h'
    """

    expires_in: ObjectExpiration | None = None
    initial_acl: StorageACL | None = None

    def __post_init__(self) -> None:
        _ = self._expires_in_seconds
        if self.initial_acl is not None:
            check_instance("initial_acl", self.initial_acl, StorageACL)

    @property
    def _expires_in_seconds(self) -> int | None:
        """The life in seconds; ``None`` leaves it to the platform."""
        life = self.expires_in
        if life is None or (isinstance(life, str) and life in _LIVES):
            return None if life is None else _LIVES[life]
        if type(life) is int and 0 < life < 2**63:
            return life
        raise InvalidRequestError(
            f"expires_in is a positive whole number of seconds or one of "
            f"{', '.join(_LIVES)}, got {describe(life)}"
        )


@dataclass(frozen=True, eq=False)
class Upload:
    """Data to upload, anywhere inside of arguments; its URL takes its place.

    A path, a file that is open in binary mode, sync or async, an upload to a web framework such as
    Starlette's `UploadFile`, an image of Pillow or an array of NumPy needs no wrapping.

    Attributes:
        data: What to upload, as `AsyncClient.upload` takes it.
        content_type: Its media type; ``None`` takes that of an upload, or what the name tells.
        file_name: The name that the URL ends with; ``None`` takes that of the path, open file or
            upload, or leaves it to the platform.
        lifecycle: How long it lives and who may read it; ``None`` leaves it to the platform.

    Raises:
        InvalidRequestError: What is said of the data is not of its kind.

    Example:
        >>> async def main() -> None:
        ...     arguments = {"image_url": fal_async.Upload(b"...", "image/png", "cat.png")}
        ...     result = await fal_async.run("demo/echo", arguments)
        ...     print(result["image_url"])
        >>> anyio.run(main)  # doctest: +ELLIPSIS
        http.../cat.png
    """

    data: (
        str
        | bytes
        | bytearray
        | memoryview
        | PathLike[str]
        | BinaryIO
        | AsyncFile
        | Iterable[bytes]
        | AsyncIterable[bytes]
    ) = field(repr=False)
    content_type: str | None = None
    file_name: str | None = None
    lifecycle: StorageSettings | None = None

    def __post_init__(self) -> None:
        kinds = {"content_type": str, "file_name": str, "lifecycle": StorageSettings}
        for name, kind in kinds.items():
            if (value := getattr(self, name)) is not None:
                check_instance(name, value, kind)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import core_schema  # who defines a model has it at hand

        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "format": "uri"}  # what is sent in its place


def _check_decision(decision: object) -> None:
    if not is_one_of(decision, get_args(StorageACLDecision)):
        raise InvalidRequestError(
            f"a decision must be 'hide', 'forbid' or 'allow', got {describe(decision)}"
        )


class AsyncFile(Protocol):
    """An open file whose methods are coroutines, as of anyio, trio and aiofiles.

    The uploads of Starlette and FastAPI are such files, too.
    """

    async def read(self, size: int = -1, /) -> bytes:
        """Read so many bytes, or all of them."""
        raise NotImplementedError


def __getattr__(name: str) -> object:
    if name != "Arguments":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pydantic import BaseModel  # which takes longer to import than this package

    value = globals()[name] = Mapping[str, Any] | BaseModel
    return value
