"""Values of a journal: the inputs with their states, and the changes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from fal_async._core.annotations import set_module
from fal_async._files.encode import encode
from fal_async._protocol.downloads import decode_data_url
from fal_async._protocol.serialization import decode_json, encode_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from fal_async._files.attachment_uploads import UploadContent

__all__ = [
    "COMPLETE",
    "PENDING",
    "SUCCEEDED",
    "UNIDENTIFIED",
    "Begin",
    "Change",
    "Entry",
    "Forget",
    "KnownUpload",
    "Note",
    "Run",
    "State",
    "Summary",
    "Update",
    "decode_output",
    "encode_output",
    "jsonable_output",
]

#: The states of an input. ``"planned"``: nothing was sent, or the job was cancelled with its batch.
#: ``"submitting"``: a request that starts a job may have been sent. ``"running"``: the id of the
#: job is known. ``"ended"``: the job has succeeded. ``"saved"``: and its files are saved.
#: ``"failed"``: the job was rejected or has failed. ``"unsure"``: a job may have been started.
#: ``"lost"``: the job was started, and its result is gone.
State: TypeAlias = Literal[
    "planned", "submitting", "running", "ended", "saved", "failed", "unsure", "lost"
]

#: The states of inputs whose job has no known outcome.
PENDING: Final[tuple[State, ...]] = ("submitting", "running", "unsure")
#: The states of inputs that may have a job whose id is unknown.
UNIDENTIFIED: Final[tuple[State, ...]] = ("submitting", "unsure")
#: The states of inputs whose job has succeeded.
SUCCEEDED: Final[frozenset[State]] = frozenset({"ended", "saved"})
#: The states of inputs that need no more work.
COMPLETE: Final[frozenset[State]] = frozenset({*SUCCEEDED, "failed", "lost"})


@set_module("fal_async.batch")
@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One input in a journal.

    Attributes:
        key: The key of the input.
        application: The endpoint id.
        state: The state of the input.
        attempts: The number of jobs that were started for the input, or may have been.
        run: The number of the run that has started the latest job.
        position: The index of the input among the inputs of its run.
        digest: A digest of the arguments as they were sent.
        request_id: The id of the job; ``None`` while it is unknown.
        handle: The data of the job's handle, if its URLs do not follow from the ids.
        tried_at: The time of the latest submit, in seconds since 1970.
        ended_at: The time at which the job ended, or that of the submit of an unsure input, in
            seconds since 1970; ``None`` if neither has, or if it is unknown.
        units: The billable units, or ``None``.
        cost: The cost, or ``None`` if it is unknown.
        error: The error of a failed, unsure or lost job, or of one that is being cancelled, as JSON
            values.
        files: The saved files.
        is_written: Whether the output file has the row of this input.
        output: The output of the job. ``None`` if there is none, if the journal keeps no outputs,
            or in a listing.
    """

    key: str
    application: str
    state: State
    attempts: int = 1
    run: int = 0
    position: int = 0
    digest: bytes = b""
    request_id: str | None = None
    handle: Mapping[str, str] | None = None
    tried_at: float = 0.0
    ended_at: float | None = None
    units: float | None = None
    cost: Decimal | None = None
    error: Mapping[str, Any] | None = None
    files: tuple[str, ...] = ()
    is_written: bool = False
    output: Any = None


@set_module("fal_async.batch")
@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One process that has opened a journal.

    Attributes:
        number: The number of the run.
        name: A unique name, by which its lock is found.
        host: The name of the machine.
        pid: The id of the process.
        since: The time at which it opened the journal, in seconds since 1970.
        exclusive: Whether it has excluded other exclusive runs.
    """

    number: int
    name: str
    host: str
    pid: int
    since: float
    exclusive: bool


@set_module("fal_async.batch")
@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The inputs of a journal, counted.

    Attributes:
        states: The number of inputs by state; states without inputs are missing.
        attempts: The number of jobs that were started, or may have been.
        units: The billable units of all jobs.
        cost: The cost of all jobs; ``None`` if no cost is known.

    Example:
        >>> with fal_async.Journal(":memory:") as journal:
        ...     print(journal.summary().total)
        0
    """

    states: Mapping[State, int] = field(default_factory=dict[State, int])
    attempts: int = 0
    units: float = 0.0
    cost: Decimal | None = None

    @property
    def total(self) -> int:
        """The number of inputs."""
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class Begin:
    """A change that claims an input, right before a job is submitted for it.

    It applies only if the journal has `known`, or nothing, for the key. So among several processes
    one starts the job.

    Attributes:
        key: The key of the input.
        application: The endpoint id.
        position: The index of the input.
        digest: A digest of the arguments.
        at: The time, in seconds since 1970.
        known: The entry that is known; ``None`` if the journal has none.
    """

    key: str
    application: str
    position: int
    digest: bytes
    at: float
    known: Entry | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """A change of an input whose latest attempt is the given one.

    Attributes:
        key: The key of the input.
        attempts: The number of attempts that the change belongs to.
        values: The new values by the attribute of `Entry`.
        output: The output as JSON; ``None`` does not change it.
        states: The states in which the change applies; empty for all.
    """

    key: str
    attempts: int
    values: Mapping[str, Any]
    output: bytes | None = None
    states: tuple[State, ...] = ()


@dataclass(frozen=True, slots=True)
class Forget:
    """A change that removes an input."""

    key: str


@dataclass(frozen=True, slots=True)
class Note:
    """A change of a named text, such as the size of the output file."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class KnownUpload:
    """A content that was uploaded, as a journal knows it, and the change that records it.

    Attributes:
        content: The content.
        url: The URL.
        uploaded_at: The time of the upload, in seconds since 1970.
        expires_at: The end of its life, in seconds since 1970; ``None`` if only the account's
            settings limit it.
    """

    content: UploadContent
    url: str
    uploaded_at: float
    expires_at: float | None


Change: TypeAlias = Begin | Update | Forget | Note | KnownUpload


#: The beginning of outputs that are bytes, in JSON: a data URL.
_BYTES: Final = encode(b"", "application/octet-stream")


def jsonable_output(value: Any) -> Any:
    """Return an output as a JSON value: bytes become a data URL."""
    return encode(value, "application/octet-stream") if isinstance(value, bytes) else value


def encode_output(value: Any) -> bytes:
    """Encode an output for the journal."""
    return encode_json(jsonable_output(value))


def decode_output(body: bytes) -> Any:
    """Decode an output of the journal."""
    value = decode_json(body)
    if isinstance(value, str) and value.startswith(_BYTES):
        return decode_data_url(value)[1]
    return value
