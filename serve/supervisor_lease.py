"""Keeps a store's supervisor running on behalf of one API replica."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ray.exceptions import ActorDiedError, RayError

_log = logging.getLogger(__name__)


class SupervisorLease:
    """Starts the supervisor and renews its lease again and again, until it is cancelled.

    Args:
        supervisor: the actor.
        renew_s: pause between two renewals.
    """

    def __init__(self, supervisor: Any, *, renew_s: float = 5.0) -> None:
        self._supervisor = supervisor
        self._renew_s = renew_s
        self._times_dead = 0  # in a row

    async def keep(self) -> None:
        """Renew the lease; never returns."""
        while True:
            try:
                # A supervisor that Ray has restarted runs nothing until it is started.
                await self._supervisor.start.remote()
                await self._supervisor.renew.remote()
                self._times_dead = 0
            except RayError as error:
                _log.warning("the supervisor does not answer: %s", error)
                if isinstance(error, ActorDiedError):
                    self._times_dead += 1
            await asyncio.sleep(self._renew_s)

    def check(self) -> None:
        """Raise RuntimeError once Ray reports repeatedly that the supervisor will not come back."""
        if self._times_dead > 1:
            raise RuntimeError("the supervisor has died and Ray will not restart it")
