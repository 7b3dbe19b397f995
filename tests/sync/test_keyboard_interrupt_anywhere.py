from __future__ import annotations

import sys

import pytest

from tests.support.subprocesses import run_script, said

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
def test_ctrl_c_cancels_the_work_waits_for_its_cleanup_and_leaves_the_portal_alive(
    interrupted: str,
) -> None:
    assert said(f"""{WORK}
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


def test_ctrl_c_between_two_items_closes_the_generator() -> None:
    assert said("""
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


def test_ctrl_c_inside_a_block_cancels_the_block() -> None:
    assert said(f"""{WORK}
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


def test_ctrl_c_inside_a_callback_cancels_the_work() -> None:
    assert said("""
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


def test_an_uncaught_ctrl_c_prints_one_traceback_and_ends_the_program() -> None:
    done = run_script(f"""{WORK}
portal.call(work)
""")
    assert done.stdout == "cleaned up\n"
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert "During handling" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("KeyboardInterrupt")
    assert done.returncode != 0


def test_a_second_ctrl_c_ends_the_wait_for_the_cleanup() -> None:
    assert said("""
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


def test_ctrl_c_that_comes_as_the_wait_begins_is_heard() -> None:
    assert said("""
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


def test_ctrl_c_at_any_moment_leaves_the_portal_alive() -> None:
    assert said("""
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
def test_a_program_that_ends_without_closing_ends_in_silence(last_words: str) -> None:
    assert said(f"""
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


def test_what_runs_when_a_program_ends_is_cleaned_up() -> None:
    assert said("""
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
def test_a_thread_that_outlives_the_main_one_can_make_the_first_call(before: str) -> None:
    answer = said(f"""
from fal_async import ClientClosedError
{before}
{LATE_CALL}

def call():
    threading.main_thread().join()
    call_late()

threading.Thread(target=call).start()
""")
    assert answer in ANSWERS


def test_what_runs_at_exit_can_make_the_first_call() -> None:
    answer = said(f"""
from fal_async import ClientClosedError
import atexit
{LATE_CALL}
atexit.register(call_late)
""")
    assert answer in ANSWERS


def test_what_keeps_the_loop_from_running_is_raised() -> None:
    assert said("""
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
def test_a_forked_child_has_its_own_loop_and_leaves_the_parents_alone(end: str) -> None:
    assert said(f"""
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


def test_a_child_that_is_forked_while_the_loop_starts_can_use_the_portal() -> None:
    assert (
        said("""
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


def test_a_lock_that_was_held_at_a_fork_does_not_hold_up_the_child() -> None:
    assert said("""
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


def test_a_forking_server_answers_each_request_from_a_loop_of_its_own() -> None:
    assert (
        said("""
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
def test_a_process_of_multiprocessing_has_its_own_loop(method: str) -> None:
    assert said(f"""
import multiprocessing
from tests.support.subprocesses import _inherited, call_in_a_child

if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    _inherited.call(echo, 1)
    answers = context.SimpleQueue()
    child = context.Process(target=call_in_a_child, args=(answers,), name="child")
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
def test_the_loop_is_that_of_uvloop_where_it_is_installed(before: str, loop: str) -> None:
    assert said(f"""
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


def test_the_outcome_that_an_interrupt_meets_is_in_the_interrupt() -> None:
    assert said(f"""{TAKE_NUMBERS}
async def take():
    return next(counter),

say(take_all(lambda: portal.call(take)))
numbers = [number if isinstance(number, int) else number[0] for number in got]
say(numbers == list(range(next(counter))), any(isinstance(number, int) for number in got))
""") == ["300", "True True"]


def test_the_outcome_that_an_interrupt_meets_is_disposed_of_once() -> None:
    assert said(f"""{TAKE_NUMBERS}
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


def test_what_a_connection_received_with_an_interrupt_is_received_next() -> None:
    assert said(f"""{TAKE_NUMBERS}
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


def test_the_items_that_an_interrupt_meets_are_in_the_interrupt() -> None:
    assert said(f"""{TAKE_NUMBERS}
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
say(len(got) > 1000, got == list(range(len(got))), next(counter) - len(got) <= READ_AHEAD)
""") == ["300", "True True True"]
