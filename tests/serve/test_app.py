"""The API's replica and its supervisor; the whole of it is in tests/system."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

import serve.app
from serve.app import _Api


class Call:
    """An actor's method that answers so, one time after the other; then for ever as the last."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def remote(self) -> None:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is not None:
            raise answer


class Supervisor:
    def __init__(self, *answers: Exception | None) -> None:
        self.start, self.renew = Call(*answers), Call(None)


GONE = ActorDiedError()
AWAY = ActorUnavailableError("restarting", None)


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve.app, "_RENEW_S", 0.0)


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize(
    ("answers", "healthy"),
    [
        ([None], True),
        ([AWAY], True),  # it comes back by itself
        ([GONE, None], True),
        ([None, GONE, AWAY, None], True),
        ([GONE], False),
        ([None, GONE], False),
    ],
)
def test_a_supervisor_that_ended_for_good_makes_the_replica_ill(
    answers: list[Exception | None], *, healthy: bool
) -> None:
    supervisor = Supervisor(*answers)
    replica: Any = _Api.__new__(_Api)
    replica._supervisor, replica._supervisor_gone = supervisor, 0

    async def body() -> None:
        renewing = asyncio.create_task(replica._renew())
        while supervisor.start.asked < 20:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        renewing.cancel()
        if healthy:
            await replica.check_health()
        else:
            with pytest.raises(RuntimeError, match="ended for good"):
                await replica.check_health()

    asyncio.run(body())
