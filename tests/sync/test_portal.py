"""Portal: calls, iterators, context managers, callbacks and life cycle."""

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
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator

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


def test_call_returns_result(portal: Portal) -> None:
    async def describe(noun: str, *, number: int) -> str:
        return f"{number} {noun}"

    assert portal.call(describe, "cats", number=2) == "2 cats"


def test_error_has_short_traceback(portal: Portal) -> None:
    error = LookupError("nothing there")
    with pytest.raises(LookupError) as caught:
        portal.call(fail, error)
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    _, *frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames == ["call", "_run", "unwrap", "work", "fail"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_system_exit_is_raised_in_caller(portal: Portal, error: BaseException) -> None:
    with pytest.raises(type(error)):
        portal.call(fail, error)
    assert portal.call(echo, 1) == 1


def test_call_creates_no_reference_cycle(portal: Portal) -> None:
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
        portal.call(echo, 1)  # the loop lets go of an task when it turns to the next
        assert picture() is None
        assert error() is None
    finally:
        gc.enable()


def test_cancelled_coroutine_raises_closed(portal: Portal) -> None:
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


def test_first_call_starts_thread() -> None:
    before = portal_threads()
    portal = Portal()
    portal.iterate(numbers, 3)
    portal.enter(same, block, 3)
    assert portal_threads() == before
    portal.close()


def test_context_is_copied_to_coroutine(portal: Portal) -> None:
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


def test_call_on_own_loop_is_rejected(portal: Portal) -> None:
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


def run_with_asyncio(
    where: Callable[[Portal], Coroutine[object, object, list[int]]], portal: Portal
) -> list[int]:
    return asyncio.run(where(portal))


@pytest.mark.parametrize("where", [use_everything_here, use_everything_in_a_worker_thread])
@pytest.mark.parametrize(
    "run",
    [
        run_with_asyncio,
        trio.run,
        partial(anyio.run, backend="asyncio"),
        partial(anyio.run, backend="trio"),
    ],
    ids=["asyncio", "trio", "anyio-asyncio", "anyio-trio"],
)
def test_call_inside_other_event_loop(
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


def test_close_wakes_threads_after_cleanup() -> None:
    portal = Portal()
    waiting = threading.Semaphore(0)
    cleaned: list[int] = []

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


def test_closed_portal_raises_closed_error() -> None:
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


def test_calls_during_close_all_end() -> None:
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


def test_task_started_after_stop_finishes() -> None:
    thread = EventLoopThread(None)
    thread.start()
    thread.stop()
    task: PortalTask[None, int] = PortalTask(lambda _: echo(1))
    task._thread = thread
    thread.start_task(task)  # the loop was closed after it had been looked at
    with pytest.raises(ClientClosedError):
        task.wait_finished().unwrap()


def test_unstarted_task_finishes_with_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fal_async.sync._loop_thread.CANCEL_GRACE_PERIOD", 0.01)
    thread = EventLoopThread(None)
    thread.start()
    task: PortalTask[None, int] = PortalTask(lambda _: echo(1))
    task._thread = thread
    thread._tasks[task] = None  # handed over, but the loop ends before it is begun
    thread.stop()
    with pytest.raises(ClientClosedError):
        task.wait_finished().unwrap()


def test_task_spawned_during_stop_is_cancelled() -> None:
    thread = EventLoopThread(None)
    thread.start()
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)

    async def hand_over_at_the_last_moment() -> None:
        thread._stopping = True
        thread.start_task(task)

    task: PortalTask[None, None] = PortalTask(lambda _: begin())
    task._thread = thread
    last: PortalTask[None, None] = PortalTask(lambda _: hand_over_at_the_last_moment())
    last.start(thread)
    last.wait_finished().unwrap()
    with pytest.raises(ClientClosedError):
        task.wait_finished().unwrap()
    assert not begun
    thread.stop()


def test_close_runs_on_close_on_loop() -> None:
    threads: list[threading.Thread] = []

    async def bury() -> None:
        await anyio.lowlevel.checkpoint()
        threads.append(threading.current_thread())

    portal = Portal(bury)
    portal.call(echo, 1)
    portal.close()
    assert [thread.name for thread in threads] == ["fal-portal"]
    assert not threads[0].is_alive()


def test_dropped_portal_stops_thread() -> None:
    async def where() -> threading.Thread:
        return threading.current_thread()

    portal = Portal()
    thread = portal.call(where)
    del portal
    thread.join(10)
    assert not thread.is_alive()


def test_portal_dropped_on_own_loop() -> None:
    held = [Portal()]

    async def drop() -> threading.Thread:
        held.clear()
        return threading.current_thread()

    call = held[0].call
    thread = Portal.call(held[0], drop)
    del call
    thread.join(10)
    assert not thread.is_alive()


def test_close_on_own_loop() -> None:
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


def test_endless_cleanup_is_abandoned(
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


def test_iterate_yields_items_in_order(portal: Portal) -> None:
    diary = Diary(end=5 * READ_AHEAD)
    assert list(portal.iterate(diary.pages)) == list(range(5 * READ_AHEAD))
    assert diary.closed.is_set()
    assert len(diary.tasks) == 1


def test_iterate_raises_error_after_items(portal: Portal) -> None:
    error = LookupError("torn out")
    diary = Diary(end=3, error=error)
    seen: list[int] = []
    with pytest.raises(LookupError) as caught:
        seen.extend(portal.iterate(diary.pages))
    assert seen == [0, 1, 2]
    assert caught.value is error
    assert error.__context__ is None
    _, *frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames == ["iterate", "unwrap", "emit_items", "pages"]


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
def test_break_closes_iterator_in_its_task(
    portal: Portal, leave: Callable[[Portal, Diary], None]
) -> None:
    diary = Diary()
    leave(portal, diary)
    assert diary.closed.is_set()
    assert len(diary.tasks) == 1
    assert portal.call(echo, 1) == 1


def test_unused_iterator_runs_nothing(portal: Portal) -> None:
    diary = Diary()
    pages = portal.iterate(diary.pages)
    pages.close()
    assert not diary.tasks


def test_cancel_scope_around_yield_works(portal: Portal) -> None:
    async def scoped() -> AsyncGenerator[int, None]:
        with anyio.fail_after(60):
            for number in range(3 * READ_AHEAD):
                yield number

    assert list(portal.iterate(scoped)) == list(range(3 * READ_AHEAD))
    for _ in portal.iterate(scoped):
        break


def test_emitted_items_need_no_loop(portal: Portal) -> None:
    taken = threading.Event()

    async def burst() -> AsyncGenerator[int, None]:
        for number in range(READ_AHEAD - 1):
            yield number
        assert taken.wait(10)  # blocks the loop, which no item needs any more

    items = portal.iterate(burst)
    assert [next(items) for _ in range(READ_AHEAD - 1)] == list(range(READ_AHEAD - 1))
    taken.set()
    assert list(items) == []


def test_iterator_reads_ahead_to_limit(portal: Portal) -> None:
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


def test_iterator_without_aclose_works(portal: Portal) -> None:
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


def test_iterator_collected_on_loop_thread(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_closed_portal_ends_iterator() -> None:
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


def test_context_runs_in_one_task(portal: Portal) -> None:
    room = Room()
    with portal.enter(lambda portal, room: (portal, room), room.open) as (its_portal, entered):
        assert its_portal is portal
        assert entered is room
        assert not room.left
        assert portal.call(echo, 1) == 1
    assert room.left
    assert len(room.tasks) == 1


def test_context_is_entered_once(portal: Portal) -> None:
    block_of_one = portal.enter(same, block, 1)
    with block_of_one:
        with pytest.raises(InvalidRequestError, match="twice"), block_of_one:
            pass
        assert portal.call(echo, 1) == 1
    with pytest.raises(InvalidRequestError, match="twice"):
        block_of_one.__enter__()


def test_body_error_reaches_manager(portal: Portal) -> None:
    room, error = Room(), LookupError("lost")
    with pytest.raises(LookupError) as caught, portal.enter(same, room.open):
        raise error
    assert caught.value is error
    assert room.body_error is error
    assert error.__context__ is None
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == [
        "test_body_error_reaches_manager"
    ]


def test_manager_suppresses_body_error(portal: Portal) -> None:
    room = Room(swallow=True)
    with portal.enter(same, room.open):
        raise LookupError("lost")
    assert isinstance(room.body_error, LookupError)


def test_manager_replaces_body_error(portal: Portal) -> None:
    error = OSError("broken")
    with pytest.raises(OSError, match="broken") as caught:  # noqa: SIM117 -- reads as it runs
        with portal.enter(same, Room(instead=error).open):
            pass
    assert caught.value is error


def test_enter_error_is_raised(portal: Portal) -> None:
    error = LookupError("no such room")

    @asynccontextmanager
    async def locked() -> AsyncGenerator[int, None]:
        await fail(error)
        yield 1

    with pytest.raises(LookupError) as caught, portal.enter(same, locked):
        pass
    assert caught.value is error
    assert error.__context__ is None


def test_background_error_is_raised_on_exit(portal: Portal) -> None:
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
def test_stop_iteration_cancels_context(portal: Portal, error: BaseException) -> None:
    room = Room()
    with pytest.raises(type(error)) as caught, portal.enter(same, room.open):
        raise error
    assert caught.value is error
    assert error.__context__ is None
    assert isinstance(room.body_error, asyncio.CancelledError)
    assert room.left
    assert len(room.tasks) == 1
    assert portal.call(echo, 1) == 1


def test_wrapper_error_exits_context(portal: Portal) -> None:
    def spoil(portal: Portal, room: Room) -> Room:
        raise LookupError("no wrapper")

    room = Room()
    with pytest.raises(LookupError, match="no wrapper"), portal.enter(spoil, room.open):
        pass
    assert room.left


def test_exit_after_close_raises_nothing() -> None:
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


def test_callback_runs_on_calling_thread(portal: Portal) -> None:
    seen: list[object] = []

    def callback(news: str) -> None:
        seen.append((news, threading.current_thread(), portal.call(echo, 1)))

    assert tell(portal, callback) == "done"
    assert seen == [("news", threading.current_thread(), 1)]


def test_async_callback_runs_on_loop(portal: Portal) -> None:
    seen: list[object] = []

    async def callback(news: str) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append((news, threading.current_thread().name))

    assert tell(portal, callback) == "done"
    assert seen == [("news", "fal-portal")]


@pytest.mark.parametrize("error", [LookupError("lost"), KeyboardInterrupt(), StopIteration()])
def test_callback_error_is_raised_in_caller(portal: Portal, error: BaseException) -> None:
    def callback(news: str) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        tell(portal, callback)
    assert caught.value is error
    assert error.__context__ is None
    assert portal.call(echo, 1) == 1


def test_missing_callback_stays_none() -> None:
    assert run_in_caller_thread(None) is None
