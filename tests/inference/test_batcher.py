"""The batcher on a real event loop: fair, bounded, and without lost items."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storeguard.errors import OverloadedError
from storeguard.inference.batcher import Batched, Batcher, BatcherStats
from storeguard.testing import FakeClock

SOON_S = 120.0  # a machine may stand still for a while
LATER_S = 3600.0


class Model:
    """Doubles numbers, remembers its batches, and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, items: list[int]) -> Sequence[int]:
        with self._lock:
            self.batches.append(list(items))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        self.entered.release()
        self.gate.wait(SOON_S)
        with self._lock:
            self._now -= 1
        if any(item < 0 for item in items):
            raise ArithmeticError(f"cannot do {items}")
        return [2 * item for item in items]

    async def begun(self) -> None:
        """Wait until it has been called once more."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=SOON_S)

    @contextmanager
    def held(self) -> Iterator[None]:
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()


def run_with(
    body: Callable[[Batcher[int, int], Model], Awaitable[None]],
    model: Callable[[list[int]], Sequence[int]] | None = None,
    **more: Any,
) -> Batcher[int, int]:
    """Run a test's body with a batcher, and close it."""
    chosen = {"max_batch": 4, "max_wait_s": 0.0, "max_queue": 100, **more}
    doubling = Model()

    async def main() -> Batcher[int, int]:
        with ThreadPoolExecutor(4) as pool:
            batcher: Batcher[int, int] = Batcher(model or doubling, pool, **chosen)
            try:
                await asyncio.wait_for(body(batcher, doubling), 2 * SOON_S)
            finally:
                doubling.gate.set()
                await batcher.close()
        return batcher

    return asyncio.run(main())


def submit(batcher: Batcher[int, int], lane: str, *items: int) -> list[asyncio.Task[Batched[int]]]:
    return [asyncio.create_task(batcher.submit(lane, item)) for item in items]


async def run_tasks() -> None:
    """Run all tasks as far as they can get without time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


async def hold_up(batcher: Batcher[int, int], model: Model) -> asyncio.Task[Batched[int]]:
    """Occupy the only runner with item 0, so that what comes now waits."""
    (first,) = submit(batcher, "first", 0)
    await model.begun()
    return first


def outcome(task: asyncio.Task[Batched[int]]) -> str | int:
    """The answer's value, or the kind of its error; the task must be done."""
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return type(error).__name__ if error else task.result().value


def test_a_full_batch_leaves_at_once() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        answers = await asyncio.gather(*submit(batcher, "a", 1, 2, 3, 4))

        assert [answer.value for answer in answers] == [2, 4, 6, 8]
        assert {answer.batch_size for answer in answers} == {4}
        assert model.batches == [[1, 2, 3, 4]]

    run_with(body, max_wait_s=LATER_S)


def test_a_batch_that_is_not_full_leaves_at_the_deadline_of_its_oldest() -> None:
    clock = FakeClock()

    async def body(batcher: Batcher[int, int], model: Model) -> None:
        (oldest,) = submit(batcher, "a", 1)
        await run_tasks()
        clock.advance(LATER_S - 100)
        (younger,) = submit(batcher, "b", 2)
        await run_tasks()
        assert model.batches == []  # 100 s are left

        clock.advance(100)
        (youngest,) = submit(batcher, "c", 3)  # wakes it, as each new item does
        answers = await asyncio.gather(oldest, younger, youngest)

        assert model.batches == [[1, 2, 3]]
        waited_ms = [answer.queued_ms for answer in answers]
        assert waited_ms == pytest.approx([LATER_S * 1e3, 100e3, 0])

    # waiting for the rest takes real seconds: many, so that they never pass meanwhile
    run_with(body, max_wait_s=LATER_S, monotonic=clock.monotonic)


def test_the_deadline_needs_nothing_to_arrive() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        (answer,) = await asyncio.gather(*submit(batcher, "a", 1))

        assert answer.queued_ms >= 30
        assert model.batches == [[1]]

    run_with(body, max_wait_s=0.03)


def test_a_busy_camera_does_not_take_the_place_of_a_quiet_one() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        with model.held():
            first = await hold_up(batcher, model)
            busy = submit(batcher, "busy", *range(100, 150))
            await run_tasks()
            quiet = submit(batcher, "quiet", 7)
            await run_tasks()
        await asyncio.gather(first, *busy, *quiet)

        assert model.batches[1] == [100, 7, 101, 102]
        # in its own lane each camera's frames stay in order
        assert [i for batch in model.batches for i in batch if i >= 100] == list(range(100, 150))

    run_with(body)


def test_with_batches_of_one_lanes_take_turns() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        with model.held():
            first = await hold_up(batcher, model)
            waiting = (
                submit(batcher, "a", 10, 11, 12)
                + submit(batcher, "b", 20)
                + submit(batcher, "c", 30)
            )
            await run_tasks()
        await asyncio.gather(first, *waiting)

        assert model.batches == [[0], [10], [20], [30], [11], [12]]

    run_with(body, max_batch=1)


def test_past_the_bound_the_fullest_lane_loses_its_oldest() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        with model.held():
            first = await hold_up(batcher, model)
            quiet = submit(batcher, "quiet", 1)
            busy = submit(batcher, "busy", 10, 11, 12, 13, 14)
            await run_tasks()
            assert batcher.stats().waiting == 4
            with pytest.raises(OverloadedError, match=r"'busy'.*4 frames are waiting"):
                await busy[0]
        await asyncio.wait([first, *quiet, *busy])

        refused = "OverloadedError"
        assert [outcome(t) for t in (*quiet, *busy)] == [2, refused, refused, 24, 26, 28]
        stats = batcher.stats()
        assert (stats.submitted, stats.answered, stats.refused) == (7, 5, 2)

    run_with(body, max_queue=4)


def test_an_error_reaches_the_items_of_its_batch_alone() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        with model.held():
            first = await hold_up(batcher, model)
            unlucky = submit(batcher, "a", 1, -2)
            lucky = submit(batcher, "b", 3, 4, 5)
            await run_tasks()
        await asyncio.wait([first, *unlucky, *lucky])

        # batches of two, lanes in turn: [1, 3], [-2, 4], [5]
        wrong = "ArithmeticError"
        assert [outcome(t) for t in (*unlucky, *lucky)] == [2, wrong, 6, wrong, 10]
        stats = batcher.stats()
        assert (stats.answered, stats.failed, stats.batches) == (4, 2, 4)

    run_with(body, max_batch=2)


def test_the_wrong_number_of_results_fails_the_whole_batch() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        del model
        tasks = submit(batcher, "a", 1, 2)
        await asyncio.wait(tasks)

        assert [outcome(task) for task in tasks] == ["ValueError", "ValueError"]
        assert batcher.stats().failed == 2

    run_with(body, lambda items: items[:1], max_batch=2)


def test_who_gives_up_while_waiting_costs_nothing() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        with model.held():
            first = await hold_up(batcher, model)
            tasks = submit(batcher, "a", 1, 2, 3)
            await run_tasks()
            tasks[1].cancel()
            await run_tasks()
            assert batcher.stats().waiting == 2
            assert batcher.stats().abandoned == 1
            # and makes room: two more fit into a queue of four
            more = submit(batcher, "b", 4, 5)
            await run_tasks()
            assert batcher.stats().refused == 0
        await asyncio.wait([first, *tasks, *more])

        assert [outcome(t) for t in (*tasks, *more)] == [2, "cancelled", 6, 8, 10]
        assert 2 not in model.batches[1]

    run_with(body, max_queue=4)


def test_who_gives_up_during_the_work_does_not_disturb_the_others() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        with model.held():
            tasks = submit(batcher, "a", 1, 2)
            await model.begun()
            tasks[0].cancel()
            await run_tasks()
        await asyncio.wait(tasks)

        assert [outcome(task) for task in tasks] == ["cancelled", 4]

    run_with(body, max_batch=2)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_so_many_batches_run_at_once(concurrency: int) -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        with model.held():
            tasks = submit(batcher, "a", 1, 2, 3)
            for _ in range(concurrency):
                await model.begun()
            await run_tasks()
            assert batcher.stats().waiting == 3 - concurrency
        await asyncio.gather(*tasks)

        assert model.most_at_once == concurrency

    run_with(body, max_batch=1, concurrency=concurrency)


def test_close_leaves_no_item_waiting() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        with model.held():
            first = await hold_up(batcher, model)
            waiting = submit(batcher, "a", 1, 2)
            await run_tasks()
            closing = asyncio.create_task(batcher.close(deadline_s=SOON_S))
            await asyncio.wait(waiting)
            assert not first.done()  # it has begun, and may end
        await closing

        assert [outcome(t) for t in (first, *waiting)] == [0, "OverloadedError", "OverloadedError"]
        with pytest.raises(OverloadedError, match="has stopped"):
            await batcher.submit("a", 3)

    run_with(body)


def test_close_gives_up_on_a_model_that_hangs() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        with model.held():
            first = await hold_up(batcher, model)
            await batcher.close(deadline_s=0.02)
            await asyncio.wait([first])

            assert outcome(first) == "OverloadedError"

    run_with(body)


def test_close_without_any_work() -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        del model
        await batcher.close()
        await batcher.close()

    assert run_with(body).stats().submitted == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from("abc"), st.sampled_from([1, 2, 3, -1])),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("run_tasks"), st.just(0), st.just(0)),
        st.tuples(st.just("work"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


def adds_up(stats: BatcherStats) -> bool:
    ended = stats.answered + stats.refused + stats.failed + stats.abandoned
    return stats.submitted == ended + stats.waiting


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.integers(1, 3), st.integers(1, 5))
def test_the_counts_add_up(plan: list[Any], max_batch: int, max_queue: int) -> None:
    async def body(batcher: Batcher[int, int], model: Model) -> None:
        del model
        tasks: list[asyncio.Task[Batched[int]]] = []
        for what, where, item in plan:
            match what:
                case "submit":
                    tasks += submit(batcher, where, item)
                case "cancel" if tasks:
                    tasks[where % len(tasks)].cancel()
                case "run_tasks":
                    await run_tasks()
                case "work":
                    await asyncio.sleep(0.001)
            assert batcher.stats().waiting <= max_queue
        await run_tasks()
        if tasks:
            await asyncio.wait(tasks)
        async with asyncio.timeout(SOON_S):  # what a caller has left may still be worked on
            while not adds_up(batcher.stats()):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        stats = batcher.stats()
        ends = [outcome(task) for task in tasks]
        assert stats.waiting == 0
        assert adds_up(stats)
        assert stats.refused == ends.count("OverloadedError")
        # whose caller left during the work is answered or failed all the same
        assert stats.answered >= sum(isinstance(end, int) for end in ends)
        assert stats.failed >= ends.count("ArithmeticError")

    run_with(body, max_batch=max_batch, max_queue=max_queue)
