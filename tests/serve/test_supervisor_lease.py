"""An API replica's lease of its supervisor; real ones are in tests/system."""

from __future__ import annotations

import asyncio

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from serve.supervisor_lease import SupervisorLease


class Call:
    """An actor's method with these results, one a call; the last one repeats."""

    def __init__(self, *results: Exception | None) -> None:
        self._results = list(results)
        self.num_calls = 0

    async def remote(self) -> None:
        self.num_calls += 1
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if result is not None:
            raise result


class Supervisor:
    def __init__(self, *results: Exception | None) -> None:
        self.start, self.renew = Call(*results), Call(None)


DEAD = ActorDiedError()
AWAY = ActorUnavailableError("restarting", None)


@pytest.mark.parametrize(
    ("results", "healthy"),
    [
        ([None], True),
        ([AWAY], True),  # Ray restarts it
        ([DEAD, None], True),
        ([None, DEAD, AWAY, None], True),
        ([DEAD], False),
        ([None, DEAD], False),
    ],
)
def test_a_dead_supervisor_makes_the_replica_unhealthy(
    results: list[Exception | None], *, healthy: bool
) -> None:
    supervisor = Supervisor(*results)
    lease = SupervisorLease(supervisor, renew_s=0.0)

    async def body() -> None:
        keeping = asyncio.create_task(lease.keep())
        while supervisor.start.num_calls < 20:  # noqa: ASYNC110 - it signals nothing
            await asyncio.sleep(0)
        keeping.cancel()

    asyncio.run(body())
    if healthy:
        lease.check()
    else:
        with pytest.raises(RuntimeError, match="will not restart it"):
            lease.check()
