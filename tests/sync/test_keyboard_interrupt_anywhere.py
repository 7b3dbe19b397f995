"""Portal in programs of their own: Ctrl-C, forks and interpreter exit."""

from __future__ import annotations

import sys

import pytest

from tests.support.subprocesses import printed_lines, run_program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX"),
]

#: A coroutine that is interrupted while it waits, and takes its time to clean up.
WORK = """
async def work():
    try:
        ctrl_c()
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            say("cleaned up")
"""


# Ctrl-C


@pytest.mark.parametrize(
    "interrupted",
    [
        pytest.param("portal.call(work)", id="in a call"),
        pytest.param("next(portal.iterate(items))", id="in an iterator's step"),
        pytest.param("portal.enter(same, block).__enter__()", id="while entering a block"),
    ],
)
def test_ctrl_c_waits_for_cleanup(
    interrupted: str,
) -> None:
    assert printed_lines(f"""{WORK}
async def items():
    await work()
    yield 1

@asynccontextmanager
async def block():
    await work()
    yield 1

try:
    {interrupted}
except KeyboardInterrupt as error:
    say(repr(error), error.__cause__, error.__context__)
say(portal.call(echo, "alive"))
""") == ["cleaned up", "KeyboardInterrupt() None None", "alive"]


def test_ctrl_c_between_items_closes_iterator() -> None:
    assert printed_lines("""
async def items():
    try:
        for number in range(100):
            yield number
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
            say("cleaned up")

try:
    for item in portal.iterate(items):
        signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt as error:
    say(repr(error), error.__cause__, error.__context__)
say(portal.call(echo, "alive"))
""") == ["cleaned up", "KeyboardInterrupt() None None", "alive"]


def test_ctrl_c_in_with_body_cancels_context() -> None:
    assert printed_lines(f"""{WORK}
@asynccontextmanager
async def block():
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            yield
            say("not reached")
    finally:
        say("left")

try:
    with portal.enter(same, block):
        portal.call(work)
except KeyboardInterrupt as error:
    say(repr(error), error.__cause__, error.__context__)
say(portal.call(echo, "alive"))
""") == ["cleaned up", "left", "KeyboardInterrupt() None None", "alive"]


def test_ctrl_c_in_callback_cancels_call() -> None:
    assert printed_lines("""
from fal_async.sync._task import run_in_caller_thread

async def work(callback):
    try:
        await callback()
    finally:
        say("cleaned up")

try:
    portal.call(work, run_in_caller_thread(lambda: signal.raise_signal(signal.SIGINT)))
except KeyboardInterrupt as error:
    say(repr(error), error.__cause__, error.__context__)
say(portal.call(echo, "alive"))
""") == ["cleaned up", "KeyboardInterrupt() None None", "alive"]


def test_uncaught_ctrl_c_prints_one_traceback() -> None:
    done = run_program(f"""{WORK}
portal.call(work)
""")
    assert done.stdout == "cleaned up\n"
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert "During handling" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("KeyboardInterrupt")
    assert done.returncode != 0


def test_second_ctrl_c_skips_cleanup() -> None:
    assert printed_lines("""
import traceback
async def stubborn():
    try:
        ctrl_c()
        await anyio.sleep_forever()
    finally:
        ctrl_c()
        with anyio.CancelScope(shield=True):
            await ended.wait()
            say("cleaned up")

async def make_event():
    return anyio.Event()

async def end():
    ended.set()

ended = portal.call(make_event)
try:
    portal.call(stubborn)
except KeyboardInterrupt as error:
    say(repr(error), traceback.format_exc().count("Traceback"))
portal.call(end)
""") == ["KeyboardInterrupt() 1", "cleaned up"]


def test_ctrl_c_just_before_wait_is_handled() -> None:
    assert printed_lines("""
async def work():
    ctrl_c()
    await anyio.sleep_forever()

interrupts = 0
for _ in range(500):
    try:
        portal.call(work)
    except KeyboardInterrupt:
        interrupts += 1
say(interrupts)
""") == ["500"]


def test_portal_survives_ctrl_c_at_any_moment() -> None:
    assert printed_lines("""
async def tick():
    await anyio.lowlevel.checkpoint()

async def numbers():
    for number in range(3):
        yield number

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
interrupts = 0
portal.call(tick)  # starting a thread is not safe from signals in Python itself
for delay in range(150):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0001 + delay * 0.00001)
        while True:
            portal.call(tick)
            list(portal.iterate(numbers))
    except KeyboardInterrupt:
        interrupts += 1
say(interrupts, portal.call(echo, "alive"))
portal.close()
say(len(portal._threads[os.getpid()]._tasks))
""") == ["150 alive", "0"]


# Exits


@pytest.mark.parametrize(
    "last_words",
    [
        pytest.param("portal.call(echo, 1)", id="after a call"),
        pytest.param("items = portal.iterate(numbers); next(items)", id="within an iterator"),
        pytest.param("block = portal.enter(same, hold); block.__enter__()", id="within a block"),
        pytest.param("hold_in_a_thread()", id="with a thread in a call"),
        pytest.param("portal.call(echo, 1); sys.exit(0)", id="by exit"),
        pytest.param("keep = sys.modules['keep'] = portal; portal.call(echo, 1)", id="kept alive"),
    ],
)
def test_exit_without_close_is_silent(last_words: str) -> None:
    assert printed_lines(f"""
async def numbers():
    number = 0
    while True:
        yield number
        number += 1

@asynccontextmanager
async def hold():
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        yield

def hold_in_a_thread():
    entered = threading.Event()

    async def wait():
        entered.set()
        await anyio.sleep_forever()

    def run():
        try:
            portal.call(wait)
        except BaseException as error:
            os.write(1, (type(error).__name__ + chr(10)).encode())

    threading.Thread(target=run, daemon=True).start()
    entered.wait()

{last_words}
""") in ([], ["ClientClosedError"])


def test_exit_cleans_up_running_calls() -> None:
    assert printed_lines("""
async def numbers():
    try:
        while True:
            yield 1
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
            say("cleaned up")

async def bury():
    say("buried")

portal = Portal(bury)
items = portal.iterate(numbers)
next(items)
""") == ["cleaned up", "buried"]


#: Some versions of Python let threads start at their end, and others do not.
LATE_CALL = """
def call_late():
    try:
        say(portal.call(echo, "late"))
    except ClientClosedError as error:
        say(type(error).__name__)
"""
ANSWERS = (["late"], ["ClientClosedError"])


@pytest.mark.parametrize("before", ["", "sys.modules['uvloop'] = None"], ids=["uvloop", "asyncio"])
def test_first_call_after_main_thread_ended(before: str) -> None:
    answer = printed_lines(f"""
from fal_async import ClientClosedError
{before}
{LATE_CALL}

def call():
    threading.main_thread().join()
    call_late()

threading.Thread(target=call).start()
""")
    assert answer in ANSWERS


def test_first_call_at_exit() -> None:
    answer = printed_lines(f"""
from fal_async import ClientClosedError
import atexit
{LATE_CALL}
atexit.register(call_late)
""")
    assert answer in ANSWERS


def test_loop_start_error_is_raised() -> None:
    assert printed_lines("""
sys.modules["anyio._backends._asyncio"] = None
for _ in range(2):
    try:
        portal.call(echo, 1)
    except LookupError as error:
        say("asyncio" in str(error))
del sys.modules["anyio._backends._asyncio"]
say(portal.call(echo, "now it runs"))
""") == ["True", "True", "now it runs"]


# Forks


@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit(0)"])
def test_forked_child_has_own_loop(end: str) -> None:
    assert printed_lines(f"""
async def numbers():
    try:
        for number in range(100):
            yield number
    finally:
        say("closed")

@asynccontextmanager
async def hold():
    yield
    say("left")

async def some():
    yield 1

items = portal.iterate(numbers)
say(next(items))
with portal.enter(same, hold):
    child = os.fork()
    if child:
        say("status", os.waitpid(child, 0)[1])
    else:
        say(portal.call(echo, "child"), list(portal.iterate(some)), len(portal._threads))
        items.close()
if not child:
    {end}
say(next(items), portal.call(echo, "parent"), len(portal._threads))
items.close()
""") == [
        "0",
        "child [1] 2",
        "status 0",
        "left",
        "1 parent 1",
        "closed",
    ]


def test_fork_while_loop_starts() -> None:
    assert (
        printed_lines("""
portal.call(echo, 1)  # imports are done, whose locks no fork gets over
for _ in range(20):
    portal = Portal()
    threads = [threading.Thread(target=portal.call, args=(echo, 1)) for _ in range(4)]
    for thread in threads:
        thread.start()
    child = os.fork()
    if not child:
        os._exit(portal.call(echo, 7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    for thread in threads:
        thread.join()
    portal.close()
""")
        == []
    )


def test_fork_while_lock_is_held() -> None:
    assert printed_lines("""
from fal_async.sync._loop_thread import EventLoopThread
start, parent = EventLoopThread.start, os.getpid()

def fork_and_start(thread):
    if os.getpid() == parent:
        child = os.fork()
        if not child:
            signal.alarm(20)
            os._exit(portal.call(echo, 7))
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    start(thread)

EventLoopThread.start = fork_and_start
say(portal.call(echo, "parent"))
""") == ["7", "parent"]


def test_forking_server_has_loop_per_request() -> None:
    assert (
        printed_lines("""
import socket, socketserver

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(portal.call(echo, b"answer"))

class Server(socketserver.ForkingTCPServer):
    block_on_close = True

portal.call(echo, 1)
with Server(("127.0.0.1", 0), Handler) as server:
    answering = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    answering.start()
    for _ in range(3):
        with socket.create_connection(server.server_address) as connection:
            say(connection.recv(100))
    server.shutdown()
    answering.join()
""")
        == ["b'answer'"] * 3
    )


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_child_has_own_loop(method: str) -> None:
    assert printed_lines(f"""
import multiprocessing
from tests.support.subprocesses import _inherited, call_in_child

if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    _inherited.call(echo, 1)
    answers = context.SimpleQueue()
    child = context.Process(target=call_in_child, args=(answers,), name="child")
    child.start()
    say(answers.get())
    child.join()
    say(child.exitcode, _inherited.call(echo, "parent"))
""") == ["('child', 'fal-portal')", "0 parent"]


# Event loops


@pytest.mark.parametrize(
    ("before", "loop"),
    [
        pytest.param("", "uvloop", id="with uvloop"),
        pytest.param("sys.modules['uvloop'] = None", "asyncio", id="without uvloop"),
    ],
)
def test_loop_is_uvloop_if_installed(before: str, loop: str) -> None:
    assert printed_lines(f"""
import asyncio
{before}

async def kind():
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]

say(portal.call(kind))
""") == [loop]


# Outcomes that arrive with an interrupt

#: Interrupts a loop of calls at many moments, of which some are those in which the value arrives.
TAKE_NUMBERS = """
import itertools
from fal_async.sync._task import READ_AHEAD
from fal_async._net.tasks import on_abandoned_result

def interrupt(*_):
    raise KeyboardInterrupt

def take_all(call):
    interrupts = 0
    for delay in range(300):
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + delay * 0.000003)
            while True:
                got.append(call())
        except KeyboardInterrupt as error:
            interrupts += 1
            got.extend(getattr(error, "outcome", ()))
    return interrupts

signal.signal(signal.SIGALRM, interrupt)
portal.call(echo, 1)
counter = itertools.count()
got = []
"""


def test_interrupt_carries_outcome() -> None:
    assert printed_lines(f"""{TAKE_NUMBERS}
async def take():
    return next(counter),

say(take_all(lambda: portal.call(take)))
numbers = [number if isinstance(number, int) else number[0] for number in got]
say(numbers == list(range(next(counter))), any(isinstance(number, int) for number in got))
""") == ["300", "True True"]


def test_abandoned_result_is_handled_once() -> None:
    assert printed_lines(f"""{TAKE_NUMBERS}
disposed = []

class Source:
    async def dispose(self, number):
        disposed.append(number)

    @on_abandoned_result(dispose)
    async def take(self):
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        return next(counter)

source = Source()

def take():
    try:
        return portal.call(source.take)
    except KeyboardInterrupt as error:
        if not hasattr(error, "outcome"):
            raise
        assert error.outcome == disposed[-1]
        del error.outcome
        raise

say(take_all(take))
say(sorted(got + disposed) == list(range(next(counter))), bool(disposed))
""") == ["300", "True True"]


def test_interrupted_message_is_received_next() -> None:
    assert printed_lines(f"""{TAKE_NUMBERS}
class Source:
    def __init__(self):
        self.kept = []

    async def keep(self, number):
        self.kept.append(number)

    @on_abandoned_result(keep, is_redelivered=True)
    async def take(self):
        return self.kept.pop(0) if self.kept else next(counter)

source = Source()
say(take_all(lambda: portal.call(source.take)))
say(got + source.kept == list(range(next(counter))))
""") == ["300", "True"]


def test_message_of_cancelled_call_is_received_once() -> None:
    assert printed_lines("""
from fal_async._net.tasks import on_abandoned_result
from fal_async.sync._task import _current

class Source:
    def __init__(self):
        self.kept = []

    async def keep(self, message):
        self.kept.append(message)

    @on_abandoned_result(keep, is_redelivered=True)
    async def take(self):
        with anyio.CancelScope(shield=True):
            ctrl_c()
            while not _current.get().is_cancelled:
                await anyio.lowlevel.checkpoint()
        return "message"

source = Source()
try:
    portal.call(source.take)
except KeyboardInterrupt as error:
    say(source.kept, hasattr(error, "outcome"))
""") == ["['message'] False"]


def test_interrupt_carries_unreceived_items() -> None:
    assert printed_lines(f"""{TAKE_NUMBERS}
from fal_async.sync._wrappers import SyncStreamBase

class Numbers:
    def __aiter__(self):
        return self._items()

    async def _items(self):
        while True:
            yield next(counter)
            await anyio.lowlevel.checkpoint()

def take():
    global stream
    if stream._items.gi_frame is None:  # interrupted
        stream = SyncStreamBase(portal, Numbers())
    for number in stream:
        return number

stream = SyncStreamBase(portal, Numbers())
say(take_all(take))
say(len(got) > 100, got == list(range(len(got))), next(counter) - len(got) <= READ_AHEAD)
""") == ["300", "True True True"]
