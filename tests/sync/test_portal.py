from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import traceback
import weakref
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from fal_async.errors import ClientClosedError, InvalidRequestError
from fal_async.sync._loop_thread import EventLoopThread
from fal_async.sync._portal import Portal
from fal_async.sync._task import READ_AHEAD, PortalTask, run_in_caller_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

T = TypeVar("T")

colour: ContextVar[str] = ContextVar("colour", default="none")


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


def same(portal: Portal, value: T) -> T:
    return value


async def echo(value: T) -> T:
    await anyio.lowlevel.checkpoint()
    return value


async def fail(error: BaseException) -> NoReturn:
    await anyio.lowlevel.checkpoint()
    raise error


async def numbers(end: int) -> AsyncGenerator[int, None]:
    for number in range(end):
        yield number


@asynccontextmanager
async def block(value: T) -> AsyncGenerator[T, None]:
    yield value


def portal_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fal-portal"]


# Calls


def test_a_call_returns_what_the_coroutine_returns(portal: Portal) -> None:
    async def describe(noun: str, *, number: int) -> str:
        return f"{number} {noun}"

    assert portal.call(describe, "cats", number=2) == "2 cats"


def test_an_error_arrives_as_itself_with_a_short_traceback(portal: Portal) -> None:
    error = LookupError("nothing there")
    with pytest.raises(LookupError) as caught:
        portal.call(fail, error)
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    _, *frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames == ["call", "_run", "unwrap", "work", "fail"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_error_that_ends_programs_goes_to_the_caller_and_not_to_the_loop(
    portal: Portal, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        portal.call(fail, error)
    assert portal.call(echo, 1) == 1


def test_a_call_leaves_nothing_for_the_garbage_collector(portal: Portal) -> None:
    class Picture:
        pass

    class PictureError(Exception):
        pass

    async def spoil() -> None:
        raise PictureError

    def call() -> weakref.ref[Picture]:
        return weakref.ref(portal.call(echo, Picture()))

    def call_in_vain() -> weakref.ref[PictureError]:
        try:
            portal.call(spoil)
        except PictureError as error:
            return weakref.ref(error)
        raise AssertionError

    gc.collect()
    gc.disable()
    try:
        picture, error = call(), call_in_vain()
        portal.call(echo, 1)  # the loop lets go of an errand when it turns to the next
        assert picture() is None
        assert error() is None
    finally:
        gc.enable()


def test_a_coroutine_that_is_cancelled_from_within_raises_an_error_of_ours(portal: Portal) -> None:
    async def cancel_oneself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep_forever()

    with pytest.raises(ClientClosedError):
        portal.call(cancel_oneself)


def test_fifty_threads_share_one_loop() -> None:
    portal = Portal()
    together = threading.Barrier(50)

    async def where() -> tuple[int, str]:
        return threading.get_ident(), threading.current_thread().name

    def call(_: int) -> tuple[int, str]:
        together.wait(10)
        return portal.call(where)

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        places = set(pool.map(call, range(50)))
    assert len(places) == 1
    assert {name for _, name in places} == {"fal-portal"}
    portal.close()


def test_nothing_starts_before_the_first_use() -> None:
    before = portal_threads()
    portal = Portal()
    portal.iterate(numbers, 3)
    portal.enter(same, block, 3)
    assert portal_threads() == before
    portal.close()


def test_context_variables_reach_the_coroutine_and_do_not_come_back(portal: Portal) -> None:
    async def repaint() -> str:
        seen = colour.get()
        colour.set("black")
        return seen

    async def shades() -> AsyncGenerator[str, None]:
        yield colour.get()

    @asynccontextmanager
    async def paint() -> AsyncGenerator[str, None]:
        yield colour.get()

    token = colour.set("red")
    try:
        with portal.enter(same, paint) as painted:
            seen = [portal.call(repaint), *portal.iterate(shades), painted]
        assert seen == ["red", "red", "red"]
        assert colour.get() == "red"
    finally:
        colour.reset(token)


def test_a_blocking_call_on_the_loops_own_thread_is_refused(portal: Portal) -> None:
    async def call() -> int:
        return portal.call(echo, 1)

    async def iterate() -> list[int]:
        return list(portal.iterate(numbers, 1))

    async def enter() -> int:
        with portal.enter(same, block, 1) as value:
            return value

    for misuse in (call, iterate, enter):
        with pytest.raises(InvalidRequestError, match="own event loop"):
            portal.call(misuse)
    assert portal.call(echo, 1) == 1


def use_everything(portal: Portal) -> list[int]:
    async def sleep() -> int:
        with anyio.move_on_after(5):
            await anyio.lowlevel.checkpoint()
        return 1

    async def sleepy() -> AsyncGenerator[int, None]:
        yield await sleep()

    @asynccontextmanager
    async def sleeping() -> AsyncGenerator[int, None]:
        yield await sleep()

    with portal.enter(same, sleeping) as value:
        return [value, portal.call(sleep), *portal.iterate(sleepy)]


async def use_everything_here(portal: Portal) -> list[int]:
    return use_everything(portal)


async def use_everything_in_a_worker_thread(portal: Portal) -> list[int]:
    return await anyio.to_thread.run_sync(use_everything, portal)


@pytest.mark.parametrize("where", [use_everything_here, use_everything_in_a_worker_thread])
@pytest.mark.parametrize(
    "run",
    [
        lambda where, portal: asyncio.run(where(portal)),
        trio.run,
        partial(anyio.run, backend="asyncio"),
        partial(anyio.run, backend="trio"),
    ],
    ids=["asyncio", "trio", "anyio-asyncio", "anyio-trio"],
)
def test_it_works_beneath_another_event_loop(
    run: Callable[..., list[int]], where: Callable[..., Any]
) -> None:
    portal = Portal()
    assert run(where, portal) == [1, 1, 1]
    portal.close()


# Closing


class Waiter:
    """A thread that waits for a loop, and the error that it got."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 -- raised again on the waiting thread
            self._error = error

    def error(self) -> BaseException | None:
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self._error


def test_closing_wakes_the_threads_that_wait_once_their_cleanup_is_done() -> None:
    portal = Portal()
    waiting = threading.Semaphore(0)
    cleaned = []

    async def wait_for_ever() -> None:
        waiting.release()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                cleaned.append(1)

    async def nothing_comes() -> AsyncGenerator[int, None]:
        await wait_for_ever()
        yield 1

    @asynccontextmanager
    async def never_entered() -> AsyncGenerator[int, None]:
        await wait_for_ever()
        yield 1

    waiters = [
        Waiter(lambda: portal.call(wait_for_ever)),
        Waiter(lambda: list(portal.iterate(nothing_comes))),
        Waiter(lambda: portal.enter(same, never_entered).__enter__()),
    ]
    for _ in waiters:
        assert waiting.acquire(timeout=10)
    portal.close()
    assert cleaned == [1, 1, 1]
    assert [type(waiter.error()) for waiter in waiters] == [ClientClosedError] * 3


def test_use_after_closing_is_an_error_of_ours() -> None:
    used, unused = Portal(), Portal()
    used.call(echo, 1)
    for portal in (used, unused):
        portal.close()
        portal.close()
        with pytest.raises(ClientClosedError):
            portal.call(echo, 1)
        with pytest.raises(ClientClosedError):
            next(portal.iterate(numbers, 1))
        with pytest.raises(ClientClosedError), portal.enter(same, block, 1):
            pass


def test_calls_that_race_with_closing_all_end() -> None:
    for _ in range(20):
        portal = Portal()
        portal.call(echo, 1)
        started = threading.Barrier(5)

        def call_on(portal: Portal = portal, started: threading.Barrier = started) -> None:
            started.wait(10)
            for number in count():
                portal.call(echo, number)

        waiters = [Waiter(call_on) for _ in range(4)]
        started.wait(10)
        portal.close()
        assert [type(waiter.error()) for waiter in waiters] == [ClientClosedError] * 4


def test_an_errand_that_reaches_a_loop_too_late_is_ended() -> None:
    thread = EventLoopThread(None)
    thread.start()
    thread.stop()
    errand: PortalTask[None, int] = PortalTask(lambda _: echo(1))
    errand._thread = thread
    thread.start_task(errand)  # the loop was closed after it had been looked at
    with pytest.raises(ClientClosedError):
        errand.wait_finished().unwrap()


def test_an_errand_that_a_loop_did_not_come_to_is_ended_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fal_async.sync._loop_thread.CANCEL_GRACE_PERIOD", 0.01)
    thread = EventLoopThread(None)
    thread.start()
    errand: PortalTask[None, int] = PortalTask(lambda _: echo(1))
    errand._thread = thread
    thread._tasks[errand] = None  # handed over, but the loop ends before it is begun
    thread.stop()
    with pytest.raises(ClientClosedError):
        errand.wait_finished().unwrap()


def test_an_errand_that_was_handed_over_before_the_end_is_cancelled_at_its_beginning() -> None:
    thread = EventLoopThread(None)
    thread.start()
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)

    async def hand_over_at_the_last_moment() -> None:
        thread._stopping = True
        thread.start_task(errand)

    errand: PortalTask[None, None] = PortalTask(lambda _: begin())
    errand._thread = thread
    last: PortalTask[None, None] = PortalTask(lambda _: hand_over_at_the_last_moment())
    last.start(thread)
    last.wait_finished().unwrap()
    with pytest.raises(ClientClosedError):
        errand.wait_finished().unwrap()
    assert not begun
    thread.stop()


def test_closing_runs_the_last_rites_on_the_loop_and_ends_the_thread() -> None:
    threads = []

    async def bury() -> None:
        await anyio.lowlevel.checkpoint()
        threads.append(threading.current_thread())

    portal = Portal(bury)
    portal.call(echo, 1)
    portal.close()
    assert [thread.name for thread in threads] == ["fal-portal"]
    assert not threads[0].is_alive()


def test_a_portal_that_is_dropped_ends_its_thread() -> None:
    async def where() -> threading.Thread:
        return threading.current_thread()

    portal = Portal()
    thread = portal.call(where)
    del portal
    thread.join(10)
    assert not thread.is_alive()


def test_a_portal_that_is_dropped_on_its_own_loop_does_not_wait_for_itself() -> None:
    held = [Portal()]

    async def drop() -> threading.Thread:
        held.clear()
        return threading.current_thread()

    call = held[0].call
    thread = Portal.call(held[0], drop)
    del call
    thread.join(10)
    assert not thread.is_alive()


def test_closing_from_the_loop_itself_ends_it() -> None:
    portal = Portal()

    async def close() -> threading.Thread:
        portal.close()
        return threading.current_thread()

    assert not wait_for(portal.call(close))
    with pytest.raises(ClientClosedError):
        portal.call(echo, 1)


def wait_for(thread: threading.Thread) -> bool:
    thread.join(10)
    return thread.is_alive()


def test_cleanup_that_does_not_end_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fal_async.sync._task.CANCEL_GRACE_PERIOD", 0.01)
    monkeypatch.setattr("fal_async.sync._loop_thread.CANCEL_GRACE_PERIOD", 0.01)
    portal = Portal()

    async def stubborn() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep_forever()

    items = portal.iterate(stubborn)
    assert next(items) == 1
    items.close()
    assert portal.call(echo, 1) == 1
    portal.close()


# Iterators


class Diary:
    """An async generator that notes in which task it runs and where it is."""

    def __init__(self, *, end: int = 1000, error: Exception | None = None) -> None:
        self.tasks: set[int] = set()
        self.produced = 0
        self.closed = threading.Event()
        self._end = end
        self._error = error

    async def pages(self) -> AsyncGenerator[int, None]:
        try:
            for page in range(self._end):
                self._note()
                await anyio.lowlevel.checkpoint()
                self.produced += 1
                yield page
            if self._error is not None:
                raise self._error
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self._note()
            self.closed.set()

    def _note(self) -> None:
        self.tasks.add(anyio.get_current_task().id)


def test_items_come_in_order_and_the_generator_ends(portal: Portal) -> None:
    diary = Diary(end=5 * READ_AHEAD)
    assert list(portal.iterate(diary.pages)) == list(range(5 * READ_AHEAD))
    assert diary.closed.is_set()
    assert len(diary.tasks) == 1


def test_an_error_comes_as_itself_after_the_items_before_it(portal: Portal) -> None:
    error = LookupError("torn out")
    diary = Diary(end=3, error=error)
    seen: list[int] = []
    with pytest.raises(LookupError) as caught:
        seen.extend(portal.iterate(diary.pages))
    assert seen == [0, 1, 2]
    assert caught.value is error
    assert error.__context__ is None
    _, *frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames == ["iterate", "unwrap", "_emit_all", "pages"]


def leave_by_break(portal: Portal, diary: Diary) -> None:
    for page in portal.iterate(diary.pages):
        if page == 1:
            break


def leave_by_close(portal: Portal, diary: Diary) -> None:
    pages = portal.iterate(diary.pages)
    next(pages)
    pages.close()


def leave_by_del(portal: Portal, diary: Diary) -> None:
    pages = portal.iterate(diary.pages)
    next(pages)
    del pages


def leave_by_error(portal: Portal, diary: Diary) -> None:
    with suppress(LookupError):
        for page in portal.iterate(diary.pages):
            raise LookupError(page)


def leave_by_throw(portal: Portal, diary: Diary) -> None:
    pages = portal.iterate(diary.pages)
    next(pages)
    with pytest.raises(LookupError, match="thrown"):
        pages.throw(LookupError("thrown"))


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_close, leave_by_del, leave_by_error, leave_by_throw]
)
def test_leaving_a_loop_closes_the_generator_in_the_task_that_ran_it(
    portal: Portal, leave: Callable[[Portal, Diary], None]
) -> None:
    diary = Diary()
    leave(portal, diary)
    assert diary.closed.is_set()
    assert len(diary.tasks) == 1
    assert portal.call(echo, 1) == 1


def test_an_iterator_that_was_never_started_runs_nothing(portal: Portal) -> None:
    diary = Diary()
    pages = portal.iterate(diary.pages)
    pages.close()
    assert not diary.tasks


def test_a_generator_may_hold_a_cancel_scope_over_a_yield(portal: Portal) -> None:
    async def scoped() -> AsyncGenerator[int, None]:
        with anyio.fail_after(60):
            for number in range(3 * READ_AHEAD):
                yield number

    assert list(portal.iterate(scoped)) == list(range(3 * READ_AHEAD))
    for _ in portal.iterate(scoped):
        break


def test_items_that_are_there_do_not_need_the_loop(portal: Portal) -> None:
    taken = threading.Event()

    async def burst() -> AsyncGenerator[int, None]:
        for number in range(READ_AHEAD - 1):
            yield number
        assert taken.wait(10)  # blocks the loop, which no item needs any more

    items = portal.iterate(burst)
    assert [next(items) for _ in range(READ_AHEAD - 1)] == list(range(READ_AHEAD - 1))
    taken.set()
    assert list(items) == []


def test_a_generator_runs_only_so_far_ahead_of_its_consumer(portal: Portal) -> None:
    diary = Diary()
    pages = portal.iterate(diary.pages)

    async def settle() -> int:
        with anyio.fail_after(10):
            while diary.produced < READ_AHEAD:
                await anyio.lowlevel.checkpoint()
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
        return diary.produced

    next(pages)
    assert portal.call(settle) <= READ_AHEAD + 1
    assert [next(pages) for _ in range(200)] == list(range(1, 201))
    pages.close()


def test_iterators_that_cannot_be_closed_are_iterated_as_well(portal: Portal) -> None:
    class Countdown:
        left = 3

        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert list(portal.iterate(Countdown)) == [2, 1, 0]


def test_the_garbage_collector_may_close_an_iterator_on_the_loops_own_thread(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fal_async.sync._task.CANCEL_GRACE_PERIOD", 1000
    )  # the loop must not wait for itself

    class Holder:
        itself: Any
        pages: Any

    def abandon_in_a_cycle(diary: Diary) -> None:
        holder = Holder()
        holder.itself = holder
        holder.pages = portal.iterate(diary.pages)
        next(holder.pages)

    async def collect() -> None:
        gc.collect()

    diary = Diary()
    gc.disable()
    try:
        abandon_in_a_cycle(diary)
        portal.call(collect)
        assert diary.closed.wait(10)
    finally:
        gc.enable()


def test_an_iterator_that_is_closed_under_its_consumer_gives_what_was_read_then_the_error() -> None:
    portal = Portal()
    diary = Diary()
    pages = portal.iterate(diary.pages)
    assert next(pages) == 0
    portal.close()
    assert diary.closed.is_set()
    seen = [0]
    with pytest.raises(ClientClosedError):
        seen.extend(pages)
    assert seen == list(range(diary.produced))


# Context managers


class Room:
    """An async context manager that notes in which task it runs and what its body raised."""

    def __init__(self, *, swallow: bool = False, instead: Exception | None = None) -> None:
        self.tasks: set[int] = set()
        self.body_error: BaseException | None = None
        self.left = False
        self._swallow = swallow
        self._instead = instead

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Room, None]:
        self.tasks.add(anyio.get_current_task().id)
        try:
            async with anyio.create_task_group() as group:
                yield self
                group.cancel_scope.cancel()
        except BaseExceptionGroup as group_error:
            self.body_error = group_error.exceptions[0]
        except BaseException as error:
            self.body_error = error
            raise
        finally:
            self.tasks.add(anyio.get_current_task().id)
            self.left = True
        if self._instead is not None:
            raise self._instead
        if self.body_error is not None and not self._swallow:
            raise self.body_error


def test_a_block_is_entered_and_left_in_one_task(portal: Portal) -> None:
    room = Room()
    with portal.enter(lambda portal, room: (portal, room), room.open) as (its_portal, entered):
        assert its_portal is portal
        assert entered is room
        assert not room.left
        assert portal.call(echo, 1) == 1
    assert room.left
    assert len(room.tasks) == 1


def test_a_block_is_entered_once(portal: Portal) -> None:
    block_of_one = portal.enter(same, block, 1)
    with block_of_one:
        with pytest.raises(InvalidRequestError, match="twice"), block_of_one:
            pass
        assert portal.call(echo, 1) == 1
    with pytest.raises(InvalidRequestError, match="twice"):
        block_of_one.__enter__()


def test_an_error_of_the_body_reaches_the_manager_and_comes_back_as_itself(portal: Portal) -> None:
    room, error = Room(), LookupError("lost")
    with pytest.raises(LookupError) as caught, portal.enter(same, room.open):
        raise error
    assert caught.value is error
    assert room.body_error is error
    assert error.__context__ is None
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == [
        "test_an_error_of_the_body_reaches_the_manager_and_comes_back_as_itself"
    ]


def test_a_manager_may_swallow_the_error_of_the_body(portal: Portal) -> None:
    room = Room(swallow=True)
    with portal.enter(same, room.open):
        raise LookupError("lost")
    assert isinstance(room.body_error, LookupError)


def test_a_manager_may_raise_another_error(portal: Portal) -> None:
    error = OSError("broken")
    with pytest.raises(OSError, match="broken") as caught:  # noqa: SIM117 -- reads as it runs
        with portal.enter(same, Room(instead=error).open):
            pass
    assert caught.value is error


def test_an_error_while_entering_arrives_as_itself(portal: Portal) -> None:
    error = LookupError("no such room")

    @asynccontextmanager
    async def locked() -> AsyncGenerator[int, None]:
        await fail(error)
        yield 1

    with pytest.raises(LookupError) as caught, portal.enter(same, locked):
        pass
    assert caught.value is error
    assert error.__context__ is None


def test_a_block_that_fails_behind_the_bodys_back_raises_when_it_is_left(portal: Portal) -> None:
    failed = threading.Event()

    @asynccontextmanager
    async def rotten() -> AsyncGenerator[int, None]:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(fail, LookupError("rotten"))
                yield 1
        except* LookupError as errors:
            raise errors.exceptions[0] from None
        finally:
            failed.set()

    with pytest.raises(LookupError, match="rotten"), portal.enter(same, rotten):
        assert failed.wait(10)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), StopIteration()]
)
def test_an_error_that_no_coroutine_is_to_raise_is_a_cancellation_for_the_manager(
    portal: Portal, error: BaseException
) -> None:
    room = Room()
    with pytest.raises(type(error)) as caught, portal.enter(same, room.open):
        raise error
    assert caught.value is error
    assert error.__context__ is None
    assert isinstance(room.body_error, asyncio.CancelledError)
    assert room.left
    assert len(room.tasks) == 1
    assert portal.call(echo, 1) == 1


def test_a_face_that_cannot_be_made_leaves_the_block(portal: Portal) -> None:
    def spoil(portal: Portal, room: Room) -> Room:
        raise LookupError("no face")

    room = Room()
    with pytest.raises(LookupError, match="no face"), portal.enter(spoil, room.open):
        pass
    assert room.left


def test_a_block_whose_portal_was_closed_is_left_in_peace() -> None:
    portal = Portal()
    room = Room()
    with portal.enter(same, room.open):
        portal.close()
        assert room.left
    with pytest.raises(LookupError), Portal().enter(same, room.open):
        raise LookupError


# Callbacks


def tell(portal: Portal, callback: Callable[[str], Any]) -> str:
    async def work(callback: Callable[[str], Any] | None) -> str:
        assert callback is not None
        try:
            await callback("news")
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                notes.append("cleaned up")
        return "done"

    notes: list[str] = []
    try:
        return portal.call(work, run_in_caller_thread(callback))
    finally:
        assert notes == ["cleaned up"]


def test_a_callback_runs_on_the_calling_thread_and_may_call_on(portal: Portal) -> None:
    seen = []

    def callback(news: str) -> None:
        seen.append((news, threading.current_thread(), portal.call(echo, 1)))

    assert tell(portal, callback) == "done"
    assert seen == [("news", threading.current_thread(), 1)]


def test_an_async_callback_runs_on_the_loop(portal: Portal) -> None:
    seen = []

    async def callback(news: str) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append((news, threading.current_thread().name))

    assert tell(portal, callback) == "done"
    assert seen == [("news", "fal-portal")]


@pytest.mark.parametrize("error", [LookupError("lost"), KeyboardInterrupt(), StopIteration()])
def test_an_error_of_a_callback_cleans_up_and_arrives_as_itself(
    portal: Portal, error: BaseException
) -> None:
    def callback(news: str) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        tell(portal, callback)
    assert caught.value is error
    assert error.__context__ is None
    assert portal.call(echo, 1) == 1


def test_no_callback_is_relayed_as_none() -> None:
    assert run_in_caller_thread(None) is None
