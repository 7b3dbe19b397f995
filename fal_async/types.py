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
    runtime_checkable,
)

from fal_async._core.annotations import make_resolvable
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
    "Account",
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
    """An event of a workflow's stream, for ``output=`` of `stream`. Errors raise `StreamError`.

    Attributes:
        type: ``"submit"`` when a step starts, ``"completion"`` when a step has ended, ``"output"``
            for the result of the workflow, or another type of event.
        node_id: The id of the step, for ``"submit"`` and ``"completion"``.
        app_id: The endpoint id of the step's app, for ``"submit"``.
        request_id: The id of the step's request, for ``"submit"``.
        output: The output of the step or of the workflow.

    Example:
        >>> WorkflowEvent(type="completion", node_id="draw", output={"seed": 7}).output
        {'seed': 7}
    """

    type: str
    node_id: str | None = None
    app_id: str | None = None
    request_id: str | None = None
    output: Any = None


#: The priority of a job in the queue.
Priority = Literal["normal", "low"]


#: The lifetime of an uploaded file: a name, or a number of seconds.
ObjectExpiration: TypeAlias = Literal["never", "immediate", "1h", "1d", "7d", "30d", "1y"] | int


#: The access to a file: ``"forbid"`` returns 403, and ``"hide"`` returns 404.
StorageACLDecision = Literal["hide", "forbid", "allow"]


#: The service that stores uploads: ``"fal_v3"`` is the CDN, ``"fal"`` the storage service with
#: presigned URLs. ``"cdn"`` is an old name of the CDN.
Repository = Literal["fal_v3", "cdn", "fal"]


_LIFETIMES: Final[Mapping[str, int | None]] = {
    "never": None,
    "immediate": 60,  # for the platform, 0 means that the file does not expire
    "1h": 3600,
    "1d": 86_400,
    "7d": 604_800,
    "30d": 2_592_000,
    "1y": 31_536_000,
}


class ExtType(NamedTuple):
    """A msgpack extension in a message of a realtime session.

    Timestamps, the extension with code -1, are received as `datetime.datetime` in UTC, or as
    `ExtType` if that would lose precision. A ``msgpack.ExtType`` can be sent as well.

    Attributes:
        code: The extension code, from -128 to 127. Apps define the codes from 0 on, and only these
            can be sent.
        data: The content.

    Example:
        >>> ExtType(42, b"abc").code
        42
    """

    code: int
    data: bytes


class Cancellation(str):
    """The outcome of a cancel call.

    It is ``"OK"`` (the job was removed from the queue), ``"CANCELLATION_REQUESTED"`` (the runner
    was notified, and may still finish) or ``"ALREADY_COMPLETED"``.
    """

    __slots__ = ()

    @property
    def accepted(self) -> bool:
        """True if the platform accepted the cancellation."""
        return self != "ALREADY_COMPLETED"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import core_schema  # programs that use pydantic have imported it

        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


@dataclass(frozen=True)
class StorageACLRule:
    """A rule for the access of one user to a file.

    Attributes:
        user: The user's nickname or id.
        decision: The access of the user.

    Raises:
        InvalidRequestError: The decision is unknown.
    """

    user: str
    decision: StorageACLDecision

    def __post_init__(self) -> None:
        check_instance("user", self.user, str)
        _check_decision(self.decision)


@dataclass(frozen=True)
class StorageACL:
    """Read access to a file.

    Attributes:
        default: The access of users without a rule; ``None`` uses the platform's default: everyone
            who knows the URL can read the file.
        rules: The rules for single users; ``None`` for no rules.

    Raises:
        InvalidRequestError: A decision is unknown.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The account of a key.

    Attributes:
        user_id: The id of the account, which the platform signs its callbacks for.
        nickname: The name in the endpoint ids of own apps.
        full_name: The name, for people.
        is_personal: Whether the account is that of a person, not of a team; ``None`` if unknown.
        is_locked: Whether jobs of the account are rejected.
        lock_reason: The reason for that, for people; ``None`` if there is none.
        is_paying: Whether the account has paid; ``None`` if unknown.

    Example:
        >>> Account(user_id="user_2abc", nickname="acme").is_locked
        False
    """

    user_id: str
    nickname: str = ""
    full_name: str = ""
    is_personal: bool | None = None
    is_locked: bool = False
    lock_reason: str | None = None
    is_paying: bool | None = None


@dataclass(frozen=True)
class StorageSettings:
    """The lifetime of an uploaded file, and the access to it.

    Attributes:
        expires_in: The lifetime: a number of seconds, or a name; ``"immediate"`` is about a minute,
            and ``"never"`` or ``None`` uses the platform's default.
        initial_acl: The read access; ``None`` for everyone who knows the URL.

    Raises:
        InvalidRequestError: The lifetime is not a known name or a positive whole number.

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
        """The lifetime in seconds; ``None`` uses the platform's default."""
        lifetime = self.expires_in
        if lifetime is None or (isinstance(lifetime, str) and lifetime in _LIFETIMES):
            return None if lifetime is None else _LIFETIMES[lifetime]
        if type(lifetime) is int and 0 < lifetime < 2**63:
            return lifetime
        raise InvalidRequestError(
            f"expires_in must be a positive whole number of seconds or one of "
            f"{', '.join(_LIFETIMES)}, got {describe(lifetime)}"
        )


@dataclass(frozen=True, eq=False)
class Upload:
    """Data to upload, anywhere in arguments. Its URL replaces it when the arguments are sent.

    Paths, sync and async files that are open in binary mode, uploads to a web framework such as
    Starlette's `UploadFile`, Pillow images and NumPy arrays need no wrapper.

    Attributes:
        data: The data, in any form that `AsyncClient.upload` accepts.
        content_type: The media type; ``None`` uses that of the upload to a web framework, or
            guesses it from the file name.
        file_name: The last segment of the URL; ``None`` uses the name of the path, open file or
            upload, or else one of the platform's choice.
        lifecycle: The lifetime and the access; ``None`` uses the platform's defaults.

    Raises:
        InvalidRequestError: An attribute has the wrong type.

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
        from pydantic_core import core_schema  # programs that use pydantic have imported it

        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "format": "uri"}  # arguments are sent with the URL


def _check_decision(decision: object) -> None:
    if not is_one_of(decision, get_args(StorageACLDecision)):
        raise InvalidRequestError(
            f"a decision must be 'hide', 'forbid' or 'allow', got {describe(decision)}"
        )


@runtime_checkable  # for validators of arguments
class AsyncFile(Protocol):
    """An open file with async methods, such as those of anyio, trio and aiofiles.

    The uploads of Starlette and FastAPI are async files, too.
    """

    async def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes, or all bytes if it is negative."""
        raise NotImplementedError


def __getattr__(name: str) -> object:
    if name != "Arguments":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pydantic import BaseModel  # slower to import than this package

    value = globals()[name] = Mapping[str, Any] | BaseModel
    return value


for _public in [globals()[_name] for _name in __all__]:
    make_resolvable(_public)
