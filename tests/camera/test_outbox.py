"""Observations reach the rules in order, or are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storeguard.camera.outbox import Outbox
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Heartbeat, Verdict

START = datetime(2026, 1, 1, tzinfo=UTC)
WITHIN_S = 120.0


def observation(seq: int, camera_id: str = "cam") -> Observation:
    return Observation(
        camera_id=camera_id,
        epoch="e",
        seq=seq,
        captured_at=START + timedelta(seconds=seq),
        person_id=(),
        xyxy=np.zeros((0, 4), np.float32),
        score=np.zeros(0, np.float32),
    )


class Rules:
    """Rules that can be away, or take a batch and have their answer lost on the way back.

    As the real ones do, they pass over what they have seen, by (camera, epoch, seq).
    """

    def __init__(self) -> None:
        self.away = 0
        self.answers_lost = 0
        self.calls: list[list[int]] = []
        self.taken: list[int] = []
        self.calling = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self._seen: set[tuple[str, str, int]] = set()

    async def observe(
        self, batch: Sequence[Observation], heartbeats: Sequence[Heartbeat]
    ) -> list[Verdict]:
        self.heartbeats = [one.camera_id for one in heartbeats]
        self.calls.append([one.seq for one in batch])
        self.calling.set()
        await self.gate.wait()
        if self.away:
            self.away -= 1
            raise ConnectionError("connection refused")
        for one in batch:
            key = (one.camera_id, one.epoch, one.seq)
            if key not in self._seen:
                self._seen.add(key)
                self.taken.append(one.seq)
        if self.answers_lost:
            self.answers_lost -= 1
            raise ConnectionError("the answer was lost")
        return [
            Verdict(camera_id, num_events=len(self.taken))
            for camera_id in {o.camera_id for o in batch}
        ]


def run(body: Callable[[Outbox, Rules, list[Verdict]], Awaitable[None]], limit: int = 1000) -> None:
    async def main() -> None:
        rules, verdicts = Rules(), list[Verdict]()
        outbox = Outbox(
            rules.observe,
            verdicts.append,
            answer_s=WITHIN_S,
            limit=limit,
            linger_s=0.0,
            retry_s=(0.0, 0.001),
        )
        running = asyncio.create_task(outbox.run())
        try:
            await asyncio.wait_for(body(outbox, rules, verdicts), 2 * WITHIN_S)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_observations_put_together_are_sent_in_one_batch() -> None:
    async def body(outbox: Outbox, rules: Rules, verdicts: list[Verdict]) -> None:
        for seq in range(3):
            outbox.put(observation(seq))
        assert await outbox.flush(WITHIN_S)

        assert rules.calls == [[0, 1, 2]]
        assert [(v.camera_id, v.num_events) for v in verdicts] == [("cam", 3)]
        assert (outbox.dropped, outbox.failures) == (0, 0)

    run(body)


def test_a_backlog_is_sent_in_batches_of_bounded_size() -> None:
    async def body(outbox: Outbox, rules: Rules, verdicts: list[Verdict]) -> None:
        del verdicts
        for seq in range(2 * Outbox.MAX_BATCH + 1):
            outbox.put(observation(seq))
        assert await outbox.flush(WITHIN_S)

        assert [len(call) for call in rules.calls] == [Outbox.MAX_BATCH, Outbox.MAX_BATCH, 1]
        assert rules.taken == list(range(2 * Outbox.MAX_BATCH + 1))

    run(body)


def test_rules_that_cannot_be_reached_for_a_while_receive_all_in_order() -> None:
    async def body(outbox: Outbox, rules: Rules, verdicts: list[Verdict]) -> None:
        rules.away = 7
        for seq in range(20):
            outbox.put(observation(seq))
            await asyncio.sleep(0)
        assert await outbox.flush(WITHIN_S)

        assert rules.taken == list(range(20))
        assert (outbox.dropped, outbox.failures) == (0, 7)
        assert verdicts[-1].num_events == 20

    run(body)


def test_a_lost_answer_leads_to_a_replay_and_no_harm() -> None:
    async def body(outbox: Outbox, rules: Rules, verdicts: list[Verdict]) -> None:
        rules.answers_lost = 1
        outbox.put(observation(0))
        outbox.put(observation(1))
        assert await outbox.flush(WITHIN_S)

        assert rules.calls == [[0, 1], [0, 1]]  # sent twice
        assert rules.taken == [0, 1]  # taken once
        assert len(verdicts) == 1

    run(body)


def test_past_the_limit_the_oldest_waiting_are_dropped_and_counted() -> None:
    async def body(outbox: Outbox, rules: Rules, verdicts: list[Verdict]) -> None:
        del verdicts
        rules.gate.clear()
        outbox.put(observation(0))
        outbox.put(observation(1))
        await rules.calling.wait()  # 0 and 1 are being sent
        for seq in range(2, 10):
            outbox.put(observation(seq))
        rules.gate.set()
        assert await outbox.flush(WITHIN_S)

        # five in all: the two being sent, which may have arrived already, and the newest three
        assert rules.taken == [0, 1, 7, 8, 9]
        assert outbox.dropped == 5

    run(body, limit=5)


def test_a_requeued_batch_counts_towards_the_limit() -> None:
    async def body(outbox: Outbox, rules: Rules, verdicts: list[Verdict]) -> None:
        del verdicts
        rules.gate.clear()
        rules.away = 1
        for seq in range(3):
            outbox.put(observation(seq))
        await rules.calling.wait()
        for seq in range(3, 6):
            outbox.put(observation(seq))
        rules.gate.set()
        assert await outbox.flush(WITHIN_S)

        # all three of the limit were being sent; after the requeue the newest one was kept too
        assert rules.taken == [1, 2, 5]
        assert outbox.dropped == 3

    run(body, limit=3)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_tiny_limit_loses_nothing_uncounted(limit: int) -> None:
    async def body(outbox: Outbox, rules: Rules, verdicts: list[Verdict]) -> None:
        del verdicts
        rules.gate.clear()
        for seq in range(limit):
            outbox.put(observation(seq))
        await rules.calling.wait()
        outbox.put(observation(limit))
        rules.gate.set()
        assert await outbox.flush(WITHIN_S)

        assert len(rules.taken) + outbox.dropped == limit + 1
        assert rules.taken[-1] == limit  # the newest is never the one to go

    run(body, limit=limit)


def test_flush_returns_false_past_its_deadline() -> None:
    async def body(outbox: Outbox, rules: Rules, verdicts: list[Verdict]) -> None:
        del verdicts
        assert await outbox.flush(0.01)  # nothing to do
        rules.gate.clear()
        outbox.put(observation(0))
        assert not await outbox.flush(0.01)
        rules.gate.set()
        assert await outbox.flush(WITHIN_S)

    run(body)


def test_a_batch_whose_sending_was_cancelled_is_sent_when_it_runs_again() -> None:
    async def main() -> None:
        rules = Rules()
        outbox = Outbox(rules.observe, lambda _: None, answer_s=WITHIN_S, linger_s=0.0)
        rules.gate.clear()
        outbox.put(observation(0))
        first = asyncio.create_task(outbox.run())
        await rules.calling.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        rules.gate.set()
        second = asyncio.create_task(outbox.run())
        assert await outbox.flush(WITHIN_S)
        second.cancel()

        assert rules.taken == [0]

    asyncio.run(main())


def test_batches_are_resent_in_order_to_rules_that_hang() -> None:
    """As with an actor, a call that is abandoned is still processed there, only late."""

    async def main() -> None:
        rules, verdicts = Rules(), list[Verdict]()
        calls: set[asyncio.Future[list[Verdict]]] = set()

        def observe(
            batch: Sequence[Observation], heartbeats: Sequence[Heartbeat]
        ) -> Awaitable[list[Verdict]]:
            call = asyncio.ensure_future(rules.observe(batch, heartbeats))
            calls.add(call)
            return asyncio.shield(call)

        outbox = Outbox(observe, verdicts.append, answer_s=0.02, linger_s=0.0)
        running = asyncio.create_task(outbox.run())
        rules.gate.clear()
        outbox.put(observation(0))
        outbox.put(observation(1))
        async with asyncio.timeout(WITHIN_S):
            while len(rules.calls) < 3:  # noqa: ASYNC110 - the outbox's doing, not a flag
                await asyncio.sleep(0.005)
        outbox.put(observation(2))
        rules.gate.set()
        assert await outbox.flush(WITHIN_S)
        running.cancel()
        await asyncio.gather(running, *calls, return_exceptions=True)

        assert rules.calls[:3] == [[0, 1]] * 3
        assert rules.taken == [0, 1, 2]
        assert outbox.dropped == 0
        assert outbox.failures >= 2
        assert verdicts[-1].num_events == 3

    asyncio.run(main())


plans = st.lists(st.sampled_from(["put", "put", "put", "away", "lost", "yield"]), max_size=60)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plans, st.integers(1, 12))
def test_each_observation_is_delivered_once_and_in_order_or_counted(
    plan: list[str], limit: int
) -> None:
    async def body(outbox: Outbox, rules: Rules, verdicts: list[Verdict]) -> None:
        del verdicts
        put = 0
        for what in plan:
            match what:
                case "put":
                    outbox.put(observation(put))
                    put += 1
                case "away":
                    rules.away += 1
                case "lost":
                    rules.answers_lost += 1
                case "yield":
                    await asyncio.sleep(0.001)
        assert await outbox.flush(WITHIN_S)
        assert rules.taken == sorted(set(rules.taken))
        # one that was taken, its answer lost, may be dropped from the queue and counted as well
        assert put - outbox.dropped <= len(rules.taken) <= put
        if put <= limit:
            assert rules.taken == list(range(put))

    run(body, limit=limit)


def test_heartbeats_go_with_each_batch_and_alone_when_there_is_none() -> None:
    async def main() -> None:
        rules, verdicts = Rules(), list[Verdict]()
        outbox = Outbox(
            rules.observe,
            verdicts.append,
            heartbeats=lambda: [Heartbeat("cam"), Heartbeat("idle")],
            heartbeat_s=0.01,
            linger_s=0.0,
        )
        running = asyncio.create_task(outbox.run())
        async with asyncio.timeout(WITHIN_S):
            while [] not in rules.calls:  # noqa: ASYNC110 - the outbox's doing, not a flag
                await asyncio.sleep(0.005)
        assert rules.heartbeats == ["cam", "idle"]
        outbox.put(observation(0))
        assert await outbox.flush(WITHIN_S)
        assert [0] in rules.calls
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_a_flush_waits_for_an_answer_to_a_call_that_began_after_it() -> None:
    """A camera that is removed gets the ends of its events, though it has nothing to send."""

    async def main() -> None:
        rules, verdicts = Rules(), list[Verdict]()
        rules.away = 2
        outbox = Outbox(
            rules.observe,
            verdicts.append,
            heartbeats=lambda: [Heartbeat("cam")],
            heartbeat_s=WITHIN_S,
            retry_s=(0.0,),
        )
        running = asyncio.create_task(outbox.run())
        assert await outbox.flush(WITHIN_S)
        assert rules.calls == [[], [], []]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
