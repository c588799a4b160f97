"""The supervisor: starts the other actors, keeps them running, and changes cameras at run time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.fleet import ANSWER_S, Fleet, camera_status, wait_for_answers
from actors.lease import Lease
from actors.models import Models
from actors.naming import actor_name, spawn
from actors.rules import RulesActor
from storeguard.analytics.track_log import tracks_folder
from storeguard.analytics.visitors import VisitorBucket, VisitorQuery, count_visitors
from storeguard.camera.status import CameraStatus
from storeguard.clock import Clock
from storeguard.config.roster import Roster
from storeguard.config.store import CameraConfig, StoreConfig
from storeguard.errors import ConfigError, RecordingError
from storeguard.events.changes import Change, Outcome
from storeguard.events.commands import CommandConsumer, CommandStats, RecordCommand
from storeguard.events.embedded import EmbeddedValkey
from storeguard.events.event import Event, ModelRef
from storeguard.events.journal import JournalDrops
from storeguard.events.shipper import ShipperStats
from storeguard.events.store import EventStore
from storeguard.recording.manual_recording import RecordingAnswer
from storeguard.recording.uploader import UploaderStats
from storeguard.storage.objects import object_store
from storeguard.storage.retention import Retention, RetentionStats

LEASE_S = 60.0
_CHECK_S = 2.0
_FIRST_SWEEP_S = 60.0
_SWEEP_S = 600.0
_log = logging.getLogger(__name__)


class Health(NamedTuple):
    """The reports of the system's parts; None where one did not answer."""

    shipper: ShipperStats | None
    drops: JournalDrops | None
    cameras: list[CameraStatus]
    spools: dict[str, UploaderStats]
    commands: CommandStats | None = None
    retention: RetentionStats | None = None


class Supervisor:
    """Runs one store. Found by name, detached: it outlives the process that started it for as long
    as its lease is renewed.

    Args:
        config: the store's configuration.
        models: handles of the model deployments.
        clock: time, also for the actors it starts; None takes the machine's.
    """

    def __init__(
        self,
        config: StoreConfig,
        models: Models,
        *,
        clock: Clock | None = None,
    ) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        self._config = config
        self._models = models
        self._clock = clock
        self._roster = Roster(config.cameras, Path(config.data_dir) / "cameras.json")
        self._valkey: EmbeddedValkey | None = None
        self._store_url = config.events.url
        self._rules: ActorHandle[Any] | None = None
        self._fleet: Fleet | None = None
        self._commands: CommandConsumer | None = None
        self._retention: Retention | None = None
        self._starting = asyncio.Lock()
        self._changing = asyncio.Lock()
        self._started = False
        self._watches: list[asyncio.Task[None]] = []
        self._lease = Lease("supervisor", lasts_s=LEASE_S, expired=self._end)
        self._here = NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Start everything that is not running yet; harmless when all is."""
        async with self._starting:
            if self._started:
                return
            if self._config.events.url == "embedded":
                self._valkey = EmbeddedValkey(Path(self._config.data_dir) / "valkey")
                self._store_url = await asyncio.to_thread(self._valkey.start)
            info = await self._models.detector.info.remote()
            model = ModelRef(name=info.name, sha256=info.sha256)
            self._rules = spawn(
                RulesActor,
                actor_name(self._config.store, "rules"),
                self._config,
                store_url=self._store_url,
                model=model,
                clock=self._clock,
                options={"num_cpus": 0, "scheduling_strategy": self._here},
                max_concurrency=16,
            )
            self._fleet = Fleet(
                self._config,
                self._roster,
                models=self._models,
                rules=self._rules,
                here=self._here,
                clock=self._clock,
            )
            await self._apply()
            self._started = True
            self._lease.renew()  # loading a detector takes long, without any renewal
            self._watches = [
                asyncio.create_task(self._watch()),
                asyncio.create_task(self._lease.watch()),
                asyncio.create_task(self._tidy()),
            ]
            self._listen()

    async def stop(self) -> None:
        """Stop cameras, then uploaders, rules and the embedded store, in the order in which each
        hands on to the next; nothing acknowledged is lost.
        """
        for task in self._watches:
            if task is not asyncio.current_task():  # which ends this, its lease having run out
                task.cancel()
        if self._commands is not None:
            await asyncio.to_thread(self._commands.stop)
            self._commands = None
        if self._fleet is not None:
            await self._fleet.stop()
            self._fleet = None
        if self._rules is not None:
            await wait_for_answers([self._rules.stop.remote()])
            ray.kill(self._rules)
            self._rules = None
        if self._valkey is not None:
            await asyncio.to_thread(self._valkey.stop)
            self._valkey = None
        self._started = False

    async def store_url(self) -> str:
        """Where events are stored."""
        return self._store_url

    async def overrides(self) -> list[str]:
        """What of the configuration does not hold, because it was changed at run time."""
        return list(self._roster.overrides)

    async def renew(self) -> None:
        """Renew the supervisor's lease."""
        self._lease.renew()

    # ------------------------------------------------------------------ cameras

    async def cameras(self) -> list[CameraStatus]:
        """How each configured camera is doing, in configured order."""
        return [self._status_of(camera) for camera in self._roster.cameras]

    async def camera(self, camera_id: str) -> CameraConfig:
        """A camera's settings.

        Raises:
            NotFoundError: there is no such camera.
        """
        return self._roster.get(camera_id)

    async def add_camera(self, camera: CameraConfig) -> CameraStatus:
        """Start another camera; the others are not touched.

        Raises:
            ConfigError: its id is taken, or a rule needs the clip classifier and there is none.
        """
        self._require_classifier(camera)
        self._roster.add(camera)
        await self._apply()
        return self._status_of(camera)

    async def change_camera(self, camera: CameraConfig) -> CameraStatus:
        """Take new settings of a camera; its video goes on unless its source changed.

        Raises:
            NotFoundError: there is no such camera.
            ConfigError: a rule needs the clip classifier and there is none.
        """
        self._require_classifier(camera)
        self._roster.change(camera)
        await self._apply()
        return self._status_of(camera)

    async def remove_camera(self, camera_id: str) -> None:
        """Stop a camera and close its events.

        Raises:
            NotFoundError: there is no such camera.
        """
        self._roster.remove(camera_id)
        await self._apply()

    async def camera_actor(self, camera_id: str) -> ActorHandle[Any] | None:
        """The actor that runs a camera; None while it is disabled or not started yet."""
        return self._actor_of(camera_id)

    async def record(self, camera_id: str, command: RecordCommand) -> RecordingAnswer:
        """Carry out a command to record.

        Raises:
            NotFoundError: there is no such camera.
            QueryError: the span is not possible.
            RecordingError: the camera does not run, cannot record, or has nothing to stop.
        """
        group = self._actor_of(camera_id)
        if group is None:
            raise RecordingError(f"camera {camera_id!r} is not running")
        answer: RecordingAnswer = await group.record.remote(camera_id, command)
        return answer

    async def keep(self, event_id: str, *, keep: bool) -> Event:
        """Mark an event to be kept by retention, or not.

        Raises:
            NotFoundError: there is no such event.
        """
        if self._rules is None:
            raise ConnectionError("the rules are not running")
        event: Event = await self._rules.keep.remote(event_id, keep=keep)
        return event

    async def visitors(self, query: VisitorQuery) -> list[VisitorBucket]:
        """Count the people of the track log.

        Raises:
            StorageError: the log cannot be read.
        """
        folder = tracks_folder(self._config)
        return await asyncio.to_thread(count_visitors, folder, query)

    async def health(self) -> Health:
        """The reports of the parts."""
        shipper: ShipperStats | None = None
        drops: JournalDrops | None = None
        if self._rules is not None:
            try:
                shipper, drops = await asyncio.wait_for(self._rules.health.remote(), 2.0)
            except Exception as error:  # noqa: BLE001 - dead, restarting, slow: no answer
                _log.warning("the rules actor does not answer: %s", error)
        return Health(
            shipper,
            drops,
            await self.cameras(),
            {} if self._fleet is None else self._fleet.spools(),
            None if self._commands is None else self._commands.stats(),
            None if self._retention is None else self._retention.stats(),
        )

    # ------------------------------------------------------------------ inside

    def _actor_of(self, camera_id: str) -> ActorHandle[Any] | None:
        self._roster.get(camera_id)
        return None if self._fleet is None else self._fleet.group_of(camera_id)

    def _status_of(self, camera: CameraConfig) -> CameraStatus:
        if self._fleet is None:
            return camera_status(camera)
        return self._fleet.status_of(camera)

    def _require_classifier(self, camera: CameraConfig) -> None:
        """A rule that could never fire is refused, unless the classifier is off on purpose."""
        off = self._config.classifier.enabled is False
        if camera.classifies and self._models.classifier is None and not off:
            raise ConfigError(
                f"camera {camera.id!r}: rule 'shoplifting_suspected' needs the clip classifier, "
                "which this store was started without: set classifier.enabled to true and start "
                "it again"
            )

    async def _apply(self) -> None:
        """Make rules and cameras match the roster; one change after the other."""
        async with self._changing:
            if self._rules is not None:
                await self._rules.configure.remote(self._roster.cameras)
            if self._fleet is not None:
                self._fleet.reconcile()

    async def _watch(self) -> None:
        """Check that everything runs, and start what does not."""
        while True:
            # Nothing may end this loop: without it all cameras would end with their leases.
            faults = [] if self._fleet is None else await self._fleet.check()
            if self._fleet is not None and self._fleet.lacks_a_group():
                try:
                    await asyncio.wait_for(self._apply(), ANSWER_S)
                except Exception as error:  # noqa: BLE001 - retried, whatever it is
                    faults.append(error)
            if self._valkey is not None:
                try:
                    await asyncio.to_thread(self._valkey.ensure_running)
                except Exception as error:  # noqa: BLE001 - retried, whatever it is
                    faults.append(error)
            for fault in faults:
                _log.error("while watching: %r", fault, exc_info=fault)
            await asyncio.sleep(_CHECK_S)

    def _listen(self) -> None:
        """Take commands off the event store's stream."""
        loop = asyncio.get_running_loop()

        def execute(camera_id: str, command: RecordCommand) -> RecordingAnswer:
            answer = asyncio.run_coroutine_threadsafe(self.record(camera_id, command), loop)
            return answer.result(ANSWER_S)

        self._commands = CommandConsumer(
            self._store_url, store_id=self._config.store, execute=execute, clock=self._clock
        )
        self._commands.start()

    async def _tidy(self) -> None:
        """Delete what is past the bounds of retention, every few minutes."""
        rules = self._rules
        if rules is None:
            return

        def apply(changes: Sequence[Change]) -> Sequence[Outcome]:
            answer: Any = rules.apply.remote(list(changes))
            return cast("list[Outcome]", ray.get(answer, timeout=ANSWER_S))

        self._retention = Retention(
            object_store(self._config),
            EventStore(self._store_url),
            apply,
            store_id=self._config.store,
            settings=self._config.storage,
            clock=self._clock,
        )
        await asyncio.sleep(_FIRST_SWEEP_S)
        while True:
            try:
                await asyncio.to_thread(self._retention.sweep)
            except Exception:  # noqa: BLE001 - the store, the rules or the storage may be away
                _log.exception("retention has to wait")
            await asyncio.sleep(_SWEEP_S)

    async def _end(self) -> None:
        await self.stop()
        ray.actor.exit_actor()
