"""Whatever a caller passes: a value comes back, or an error of ours that names the argument."""

from __future__ import annotations

import enum
import inspect
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

import fal_async
import fal_async.sync as fal_client
from fal_async import AsyncClient, FalClientError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator import Emulator

pytestmark = pytest.mark.slow

ECHO = "demo/echo"
PATIENCE = 20.0


class Odd:
    """An object that refuses what objects do as a rule."""

    def __repr__(self) -> str:
        return "<odd>"

    def __bool__(self) -> bool:
        raise ArithmeticError("no truth")

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError("no equality")

    __hash__ = None  # type: ignore[assignment]  # as those of lists


class Colour(enum.Enum):
    RED = "red"


def itself() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def deep() -> Any:
    value: Any = {}
    for _ in range(5000):
        value = {"a": value}
    return value


#: Makers, since some values are used up.
POOL: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "object": object,
    "odd": Odd,
    "empty bytes": lambda: b"",
    "bytes": lambda: b"bytes",
    "empty": lambda: "",
    "space": lambda: " ",
    "text": lambda: "text",
    "surrogate": lambda: "\ud800",
    "line break": lambda: "é\r\n",
    "NUL": lambda: "a\0b",
    "URL": lambda: "http://[::1",
    "port": lambda: "http://a:99999999999/",
    "path": lambda: "../../\\x?#",
    "long": lambda: "a" * 100_000,
    "true": lambda: True,
    "false": lambda: False,
    "zero": lambda: 0,
    "minus": lambda: -1,
    "large": lambda: 2**64,
    "huge": lambda: 10**5000,
    "float": lambda: 0.5,
    "NaN": lambda: math.nan,
    "infinity": lambda: math.inf,
    "complex": lambda: 1j,
    "list": lambda: ["a"],
    "numbers": lambda: [1, None],
    "empty list": list,
    "endless": itself,
    "tuple": lambda: (1, 2),
    "set": lambda: {1},
    "empty dict": dict,
    "odd dict": lambda: {1: 2, None: object()},
    "surrogates": lambda: {"\ud800": "\udfff"},
    "headers": lambda: {"a": "b", "A": "c\n"},
    "deep": deep,
    "class": lambda: int,
    "abstract": lambda: Path,
    "function": lambda: lambda *_: None,
    "failing": lambda: lambda *_: 1 / 0,
    "module": lambda: math,
    "generator": lambda: (number for number in [1]),
    "enum": lambda: Colour.RED,
    "enum class": lambda: Colour,
    "exception": lambda: ValueError("x"),
    "memory": lambda: memoryview(bytearray(8)).cast("I"),
    "directory": lambda: Path(tempfile.gettempdir()),
    "no file": lambda: Path("/nonexistent/file"),
    "httpx": lambda: httpx.Timeout(5),
    "slice": lambda: slice(1),
}
#: What the caller's own functions raise is the caller's.
OWN = ZeroDivisionError

#: Valid arguments for what has no default.
GIVEN: dict[str, Callable[[Path], Any]] = {
    "application": lambda _: ECHO,
    "arguments": lambda _: {},
    "request_id": lambda _: "r-1",
    "handle": lambda _: {"application": ECHO, "request_id": "r-1"},
    "data": lambda _: b"data",
    "content_type": lambda _: "text/plain",
    "path": lambda folder: folder / "file.txt",
    "image": lambda _: b"image",
    "url": lambda _: "data:,x",
    "key": lambda _: "id:secret",
    "decision": lambda _: "allow",
    "user": lambda _: "a",
    "base_url": lambda _: "http://x",
    "inputs": lambda _: [{}],
    "journal": lambda _: ":memory:",
}


async def used(value: Any) -> Any:
    """Do with a result what is done with one of its kind."""
    if inspect.isawaitable(value):
        return await value
    if hasattr(value, "__aenter__"):
        async with value as opened:
            return opened
    if hasattr(value, "__aiter__"):
        return [item async for item in value]
    return value


def calls_of(owner: type | None) -> list[tuple[str, str]]:
    """The public methods of a class, each with the names of its parameters."""
    found: list[tuple[str, str]] = []
    for name, method in inspect.getmembers(owner, callable):
        if name.startswith("_") or name in {"aclose", "close", "prepare"}:
            continue
        found += [(name, each) for each in inspect.signature(method).parameters if each != "self"]
    return found


def arguments_for(call: Callable[..., Any], folder: Path) -> dict[str, Any]:
    return {
        name: GIVEN[name](folder)
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
    }


def is_own(parameter: str, error: Exception) -> bool:
    """Whether an error is the caller's: of the system about a path, or of a function of theirs."""
    if parameter == "interval" and isinstance(error, TimeoutError):
        return True  # it is long
    if parameter.startswith("on_") or parameter.endswith("_message"):
        return isinstance(error, TypeError | ValueError)
    return isinstance(error, OSError) and error.errno is not None


def judge(faults: list[str], label: str, error: Exception) -> None:
    """Note an error that is not ours; one that is ours has to be one that can be shown."""
    if isinstance(error, FalClientError):
        try:
            str(error).encode()
            repr(error)
        except Exception as failure:  # noqa: BLE001 -- whatever it is, it is a fault
            faults.append(f"{label}: the message of {type(error).__name__}: {failure!r}")
    elif not isinstance(error, OWN):
        faults.append(f"{label}: {type(error).__name__}: {str(error)[:100]!a}")


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Arguments are checked before an event loop has a part in anything."""
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "file.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "parameter"), calls_of(AsyncClient))
async def test_any_call_argument_raises_our_error(
    fal: Emulator, folder: Path, name: str, parameter: str
) -> None:
    fal.register(ECHO, lambda arguments: arguments)
    faults: list[str] = []
    options: dict[str, Any] = {"hosts": fal.hosts, "retry": RetryPolicy(attempts=1)}
    async with AsyncClient(fal.key, 5, **options) as client:
        call = getattr(client, name)
        for label, make in POOL.items():
            given = {**arguments_for(call, folder), parameter: make()}
            try:
                with anyio.fail_after(PATIENCE if name != "iter_events" else 2):
                    await used(call(**given))
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is looked at
                if not is_own(parameter, error):
                    judge(faults, label, error)
    assert not faults, "\n".join(["", *faults])


VALUES: list[Callable[..., Any]] = [
    fal_async.Hosts,
    fal_async.Limits,
    fal_async.RetryPolicy,
    fal_async.Upload,
    fal_async.StorageSettings,
    fal_async.StorageACL,
    fal_async.StorageACLRule,
    AsyncClient,
    fal_client.SyncClient,
    fal_async.PooledTransport,
    fal_async.Hosts.at,
]


@pytest.mark.parametrize(
    ("kind", "parameter"),
    [(kind, name) for kind in VALUES for name in inspect.signature(kind).parameters],
)
def test_any_value_argument_raises_our_error(
    folder: Path, kind: Callable[..., Any], parameter: str
) -> None:
    faults: list[str] = []
    for label, make in POOL.items():
        try:
            repr(kind(**{**arguments_for(kind, folder), parameter: make()}))
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is looked at
            judge(faults, label, error)
    assert not faults, "\n".join(["", *faults])


def test_a_value_that_was_refused_can_be_shown() -> None:
    for kind in (AsyncClient, fal_client.SyncClient):
        with pytest.raises(FalClientError) as caught:
            kind("bad key")
        trace = caught.value.__traceback__
        while trace is not None:
            assert all(map(repr, trace.tb_frame.f_locals.values()))
            trace = trace.tb_next
