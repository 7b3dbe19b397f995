"""Ctrl-C in programs that call the platform."""

from __future__ import annotations

import itertools
import signal
import sys
from typing import TYPE_CHECKING, Any, Self

import pytest

from fal_async.emulator import Fault
from tests.support.subprocesses import printed_lines, start_program

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fal_async.emulator import Emulator, Gate, Job, Socket

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]

PROGRAM = """
import time
import fal_async.sync as fal_client

def ready():
    say("ready")
    time.sleep(60)

try:
    {interrupted}
except KeyboardInterrupt as error:
    say(repr(error), error.__cause__, error.__context__)
say(fal_client.run("acme/echo", {{"still": "alive"}}))
sys.stdin.read()
"""
HAND_IN = """
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("fal_async").setLevel(logging.DEBUG)
    fal_client.submit("acme/slow", {})
"""
STREAM = """
    for event in fal_client.stream("acme/stream", {}):
        say(event)
        ready()
"""
STREAM_WITH = """
    with fal_client.stream("acme/stream", {}) as events:
        for event in events:
            ready()
"""
STATUSES = """
    for status in fal_client.submit("acme/slow", {}).iter_events():
        ready()
"""
INSIDE_SESSION = """
    with fal_client.realtime("acme/live") as connection:
        connection.send({"n": 1})
        say(connection.recv())
        ready()
"""
INSIDE_SOCKET = """
    with fal_client.ws_connect("acme/socket") as connection:
        for message in connection:
            say(message)
"""


class Platform:
    """Apps that never end by themselves, and what is left of them."""

    def __init__(self, fal: Emulator) -> None:
        self.left: list[str] = []
        self._gate = fal.gate()
        fal.register("acme/echo", lambda arguments: arguments)
        fal.register("acme/slow", self.slow)
        fal.register("acme/stream", self.stream)
        fal.realtime("acme/live")(self.live)
        fal.websocket("acme/socket")(self.socket)

    async def slow(self, arguments: dict[str, Any], job: Job) -> None:
        await self._wait("slow")

    async def stream(self, arguments: dict[str, Any]) -> AsyncGenerator[dict[str, int], None]:
        yield {"n": 1}
        await self._wait("stream")

    async def live(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    async def socket(self, socket: Socket) -> None:
        await socket.send("ready")
        try:
            async for _ in socket:
                pass
        finally:
            self.left.append("socket")

    async def _wait(self, name: str) -> None:
        try:
            await self._gate.wait()
        finally:
            self.left.append(name)


@pytest.fixture
def platform(fal: Emulator) -> Platform:
    return Platform(fal)


class Program:
    """A program that is interrupted, once it or the platform is ready for it."""

    def __init__(self, fal: Emulator, interrupted: str, last: str = "") -> None:
        source = PROGRAM.format(interrupted=interrupted.strip()) + last
        self._process = start_program(source, **fal.environ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def hear(self, word: str) -> None:
        """Wait until it says a word."""
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline().strip()) != word:
            assert line, self._process.communicate()

    def survive(self) -> None:
        """See it get over the interruption, and wait."""
        self.hear("KeyboardInterrupt() None None")
        self.hear("{'still': 'alive'}")

    def end(self) -> str:
        """Let it end, and return what else it says."""
        out, err = self._process.communicate("", timeout=30)
        assert err == ""
        assert self._process.returncode == 0
        return str(out)


@pytest.mark.parametrize(
    ("interrupted", "left"),
    [
        pytest.param(STREAM, "stream", id="between the events of a stream"),
        pytest.param(STREAM_WITH, "stream", id="in the block of a stream"),
        pytest.param(INSIDE_SOCKET, "socket", id="in a loop over messages"),
    ],
)
def test_ctrl_c_in_context_closes_stream(
    fal: Emulator, platform: Platform, interrupted: str, left: str
) -> None:
    with Program(fal, interrupted) as program:
        program.hear("ready")
        program.interrupt()
        program.survive()
        fal.wait_for(lambda: platform.left == [left])
        program.end()


@pytest.mark.parametrize(
    ("inside", "word"),
    [
        pytest.param(INSIDE_SESSION, "ready", id="in its block"),
        pytest.param(INSIDE_SESSION.replace("ready()", "connection.recv()"), "{'n': 1}", id="recv"),
    ],
)
def test_ctrl_c_closes_session(fal: Emulator, platform: Platform, inside: str, word: str) -> None:
    with Program(fal, inside, last="say(connection.close_code)") as program:
        program.hear(word)
        program.interrupt()
        program.survive()
        assert program.end() == "1000\n"


def test_ctrl_c_in_subscribe_cancels_job(fal: Emulator, platform: Platform) -> None:
    with Program(fal, 'fal_client.subscribe("acme/slow", {})') as program:
        fal.wait_for(lambda: fal.counters("acme/slow").executions == 1)
        program.interrupt()
        program.survive()
        fal.wait_for(lambda: platform.left == ["slow"])
        program.end()


def test_ctrl_c_in_run_closes_connection(fal: Emulator, platform: Platform) -> None:
    with Program(fal, 'fal_client.run("acme/slow", {})') as program:
        fal.wait_for(lambda: fal.counters("acme/slow").executions == 1)
        program.interrupt()
        program.survive()
        program.end()


@pytest.mark.parametrize("route", ["token", "realtime"])
def test_ctrl_c_while_session_opens(fal: Emulator, platform: Platform, route: Any) -> None:
    gate: Gate = fal.gate()
    fal.fail(None, Fault(route=route, delay=gate))
    with Program(fal, INSIDE_SESSION) as program:
        fal.wait_for(lambda: fal.count(route) == 1)
        program.interrupt()
        program.survive()
        program.end()
        assert platform.left == []


def test_ctrl_c_in_submit_cancels_job(fal: Emulator, platform: Platform) -> None:
    gate = fal.gate()
    fal.fail("acme/slow", Fault(route="submit", delay=gate))
    with Program(fal, HAND_IN) as program:
        fal.wait_for(lambda: fal.count("submit") == 1)
        program.interrupt()
        program.hear("The caller was cancelled. Its call completes in the background")
        gate.open()
        program.survive()
        program.end()
        assert fal.count("cancel") == 1


@pytest.mark.parametrize(
    "interrupted", ['fal_client.submit("acme/slow", {}).get()', STATUSES], ids=["get", "events"]
)
def test_ctrl_c_on_handle_keeps_job(fal: Emulator, platform: Platform, interrupted: str) -> None:
    with Program(fal, interrupted) as program:
        if "ready" in interrupted:
            program.hear("ready")
        fal.wait_for(lambda: fal.count("status_stream") == 1)
        program.interrupt()
        program.survive()
        program.end()
        assert fal.count("cancel") == 0
        assert platform.left == []


#: Interrupts a loop of calls at many moments, some of which are those in which the outcome arrives.
# Loops are functions, since CPython 3.13 leaves the jump of a loop out of the ``try`` around it.
AT_ANY_MOMENT = """
def interrupt(*_):
    raise KeyboardInterrupt

def repeat(call):
    while True:
        call()

def all_interrupted(call):
    signal.signal(signal.SIGALRM, interrupt)
    for n in range(100):
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.003 + n * 0.00003)
            repeat(call)
        except KeyboardInterrupt:
            pass
"""


@pytest.mark.slow
def test_ctrl_c_at_any_moment_of_submit(fal: Emulator, platform: Platform) -> None:
    ids = printed_lines(
        f"""{AT_ANY_MOMENT}
import fal_async.sync as fal_client
handles = [fal_client.submit("acme/slow", {{}})]
all_interrupted(lambda: handles.append(fal_client.submit("acme/slow", {{}})))
say(*[handle.request_id for handle in handles])
""",
        **fal.environ,
    )[0].split()

    unknown = {job_id for job_id in fal.jobs if job_id not in ids}
    assert len(ids) < len(fal.jobs)
    assert all(fal.jobs[job_id].cancelled for job_id in unknown)
    assert not any(fal.jobs[job_id].cancelled for job_id in ids)


@pytest.mark.slow
@pytest.mark.parametrize("receive", ["connection.recv()", "connection.__next__()"])
def test_ctrl_c_at_any_moment_of_receive(fal: Emulator, receive: str) -> None:
    numbers = itertools.count()

    @fal.websocket("acme/numbers")
    async def count(socket: Socket) -> None:
        async for _ in socket:
            for number in itertools.islice(numbers, 40):
                await socket.send(str(number))

    assert printed_lines(
        f"""
import fal_async.sync as fal_client

def interrupt(*_):
    raise KeyboardInterrupt

def receive_all():
    while len(got) < asked:
        got.append({receive})

signal.signal(signal.SIGALRM, interrupt)
got, asked, interrupts = [], 0, 0
with fal_client.ws_connect("acme/numbers") as connection:
    for n in range(100):
        connection.send("more")
        asked += 40
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + n * 0.00002)
            receive_all()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            interrupts += 1
        receive_all()
say(interrupts > 10, [*map(int, got)] == list(range(asked)))
""",
        **fal.environ,
    ) == ["True True"]


def test_interrupt_carries_outcome(fal: Emulator, platform: Platform) -> None:
    assert printed_lines(
        f"""{AT_ANY_MOMENT}
import itertools
import fal_async.sync as fal_client
counter, got = itertools.count(), []

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
fal_client.run("acme/echo", {{}})
for n in range(100):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.003 + n * 0.00003)
        repeat(lambda: got.append(fal_client.run("acme/echo", {{"n": next(counter)}})))
    except KeyboardInterrupt as error:
        if hasattr(error, "outcome"):
            got.append(error.outcome)
say({{type(each).__name__ for each in got}})
""",
        **fal.environ,
    ) == ["{'SyncResult'}"]
