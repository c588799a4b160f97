"""The uploader actor: carries finished clips from one node's spools to object storage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError

from actors.lease import Lease
from storeguard.clock import Clock
from storeguard.config.store import StoreConfig
from storeguard.errors import StoreguardError
from storeguard.events.changes import Change, Outcome
from storeguard.recording.uploader import Uploader, UploaderStats
from storeguard.storage.objects import UploadRetries, object_store

LEASE_S = 60.0
SPOOL = "spool"
_ANSWER_S = 15.0


def spool_root(config: StoreConfig) -> Path:
    """Where a store's cameras record to, on whichever node they are."""
    return config.data_dir / SPOOL


class UploaderActor:
    """Empties the spools of its node; there may be several on one, they share the work.

    Args:
        name: the actor's own name, for the log.
        config: the store's configuration.
        rules: the rules actor.
        clock: time; None takes the machine's.
    """

    def __init__(
        self,
        name: str,
        config: StoreConfig,
        *,
        rules: ActorHandle[Any],
        clock: Clock | None = None,
    ) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")

        def apply(changes: Sequence[Change]) -> Sequence[Outcome]:
            """Apply changes, with the rules' errors as they raised them."""
            try:
                outcomes: list[Outcome] = ray.get(rules.apply.remote(changes), timeout=_ANSWER_S)
            except RayTaskError as error:
                if isinstance(error.cause, StoreguardError):
                    raise error.cause from None
                raise
            return outcomes

        self._uploader = Uploader(
            spool_root(config),
            object_store(config, retries=UploadRetries(attempts=1)),  # the uploader retries
            apply,
            store_id=config.store,
            clock=clock,
        )
        self._uploader.start()
        self._lease = Lease(name, lasts_s=LEASE_S, expired=self._end)
        self._watch: asyncio.Task[None] | None = None

    async def stats(self) -> UploaderStats:
        """What was done and what waits; renews the lease."""
        self._lease.renew()
        if self._watch is None:
            self._watch = asyncio.create_task(self._lease.watch())
        return await asyncio.to_thread(self._uploader.stats)

    async def stop(self, *, drain_s: float = 5.0) -> bool:
        """Store what waits, within seconds, and end; returns whether nothing was left."""
        return await asyncio.to_thread(self._uploader.stop, drain_s=drain_s)

    async def _end(self) -> None:
        await self.stop()
        ray.actor.exit_actor()
