"""The supervisor: starts the other actors, keeps them running, and changes cameras at run time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.actor import ActorHandle
from ray.serve.handle import DeploymentHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.camera import CameraActor
from actors.lease import Lease
from actors.recorder import RecorderActor, spool_root
from actors.rules import RulesActor
from storeguard.addresses import redact
from storeguard.clock import Clock
from storeguard.config import CameraConfig, StoreConfig
from storeguard.errors import ConfigError, RecordingError
from storeguard.events.commands import CommandConsumer, CommandStats, RecordCommand
from storeguard.events.embedded import EmbeddedValkey
from storeguard.events.event import Event, ModelRef
from storeguard.events.journal import JournalDrops
from storeguard.events.shipper import ShipperStats
from storeguard.events.store import EventStore
from storeguard.pipeline.asked import RecordingAnswer
from storeguard.pipeline.recording import RecordingPlace
from storeguard.pipeline.roster import Roster
from storeguard.pipeline.status import CameraState, CameraStatus
from storeguard.storage.objects import object_store
from storeguard.storage.retention import Retention, RetentionStats
from storeguard.storage.uploader import UploaderStats

NAMESPACE = "storeguard"
LEASE_S = 60.0
_CHECK_S = 2.0
_ANSWER_S = 10.0
_FIRST_SWEEP_S = 60.0
_SWEEP_S = 600.0
_log = logging.getLogger(__name__)


class Health(NamedTuple):
    """What the parts of the system say of themselves; None where one did not answer."""

    shipper: ShipperStats | None
    drops: JournalDrops | None
    cameras: list[CameraStatus]
    spools: dict[str, UploaderStats]
    commands: CommandStats | None = None
    retention: RetentionStats | None = None


class _Recorder(NamedTuple):
    actor: ActorHandle[Any]
    node_id: str


def actor_name(store_id: str, role: str) -> str:
    """The name an actor is found by in the namespace `storeguard`."""
    return f"storeguard:{store_id}:{role}"


class Supervisor:
    """Runs one store. Found by name, detached: it outlives whoever started it, while its lease
    is renewed.

    Args:
        config: the store's configuration.
        detector: the detector deployment.
        classifier: the clip classifier's; None where no rule needs it.
        clock: time, also for the actors it starts; None takes the machine's.
    """

    def __init__(
        self,
        config: StoreConfig,
        detector: DeploymentHandle[Any],
        classifier: DeploymentHandle[Any] | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        self._config = config
        self._detector = detector
        self._classifier = classifier
        self._clock = clock
        self._roster = Roster(config.cameras, Path(config.data_dir) / "cameras.json")
        self._valkey: EmbeddedValkey | None = None
        self._store_url = config.events.url
        self._rules: ActorHandle[Any] | None = None
        self._groups: dict[str, ActorHandle[Any]] = {}
        self._recorders: dict[str, _Recorder] = {}
        self._spools: dict[str, UploaderStats] = {}
        self._commands: CommandConsumer | None = None
        self._retention: Retention | None = None
        self._statuses: dict[str, CameraStatus] = {}
        self._starting = asyncio.Lock()
        self._started = False
        self._watches: list[asyncio.Task[None]] = []
        self._lease = Lease("supervisor", lasts_s=LEASE_S, expired=self._end)
        self._node_id = ray.get_runtime_context().get_node_id()

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Start everything that is not running yet; harmless when all is."""
        async with self._starting:
            if self._started:
                return
            if self._config.events.url == "embedded":
                self._valkey = EmbeddedValkey(Path(self._config.data_dir) / "valkey")
                self._store_url = await asyncio.to_thread(self._valkey.start)
            info = await self._detector.info.remote()
            model = ModelRef(name=info.name, sha256=info.sha256)
            self._rules = self._spawn(
                RulesActor,
                "rules",
                self._config,
                store_url=self._store_url,
                model=model,
                clock=self._clock,
            )
            await self._rules.configure.remote(self._roster.cameras)
            await self._reconcile()
            self._started = True
            self._watches = [
                asyncio.create_task(self._watch()),
                asyncio.create_task(self._lease.watch()),
                asyncio.create_task(self._tidy()),
            ]
            self._listen()

    async def stop(self) -> None:
        """Stop cameras, then recorders, rules and the embedded store, in the order in which each
        hands on to the next; nothing acknowledged is lost.
        """
        for task in self._watches:
            task.cancel()
        if self._commands is not None:
            await asyncio.to_thread(self._commands.stop)
            self._commands = None
        stops = [group.stop.remote() for group in self._groups.values()]
        await _settled(stops)
        recorders = [recorder.actor for recorder in self._recorders.values()]
        await _settled([actor.stop.remote() for actor in recorders])
        if self._rules is not None:
            await _settled([self._rules.stop.remote()])
        for actor in [*self._groups.values(), *recorders, self._rules]:
            if actor is not None:
                ray.kill(actor)
        self._groups.clear()
        self._recorders.clear()
        self._rules = None
        if self._valkey is not None:
            await asyncio.to_thread(self._valkey.stop)
            self._valkey = None
        self._started = False

    async def store_url(self) -> str:
        """Where events are stored."""
        return self._store_url

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
        self._statuses.pop(camera_id, None)
        await self._apply()

    async def jpeg(self, camera_id: str, *, overlay: bool = True) -> bytes | None:
        """A camera's last processed frame as JPEG; None before the first.

        Raises:
            NotFoundError: there is no such camera.
        """
        group = self._group_of(camera_id)
        if group is None:
            return None
        jpeg: bytes | None = await group.jpeg.remote(camera_id, overlay=overlay)
        return jpeg

    async def camera_actor(self, camera_id: str) -> ActorHandle[Any] | None:
        """The actor that runs a camera; None while it is disabled or not started yet."""
        self._roster.get(camera_id)
        return self._group_of(camera_id)

    async def record(self, camera_id: str, command: RecordCommand) -> RecordingAnswer:
        """Carry out a command to record.

        Raises:
            NotFoundError: there is no such camera.
            QueryError: the span is not possible.
            RecordingError: the camera does not run, cannot record, or has nothing to stop.
        """
        group = self._group_of(camera_id)
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
        event: Event = await self._rules.set_keep.remote(event_id, keep=keep)
        return event

    async def health(self) -> Health:
        """What the parts say of themselves."""
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
            dict(self._spools),
            None if self._commands is None else self._commands.stats(),
            None if self._retention is None else self._retention.stats(),
        )

    # ------------------------------------------------------------------ inside

    def _require_classifier(self, camera: CameraConfig) -> None:
        """A rule that could never fire is refused, unless the classifier is off on purpose."""
        off = self._config.classifier.enabled is False
        if camera.classifies and self._classifier is None and not off:
            raise ConfigError(
                f"camera {camera.id!r}: rule 'shoplifting_suspected' needs the clip classifier, "
                "which this store was started without: set classifier.enabled to true and start "
                "it again"
            )

    async def _apply(self) -> None:
        """Bring rules and cameras to what the roster says."""
        if self._rules is not None:
            await self._rules.configure.remote(self._roster.cameras)
        await self._reconcile()

    async def _reconcile(self) -> None:
        wanted = self._roster.groups(self._config.placement.cameras_per_actor)
        for name in [name for name in self._groups if name not in wanted]:
            gone = self._groups.pop(name)
            await _settled([gone.stop.remote()])
            ray.kill(gone)
            # Its recorder stays until the last clip is stored; see _check_recorder.
        for name, cameras in wanted.items():
            if name not in self._groups:
                self._groups[name] = self._spawn_group(name)
            # Not awaited for an answer: an unreachable node must not stop the others.
            self._groups[name].set_cameras.remote(cameras)

    def _spawn_group(self, name: str) -> ActorHandle[Any]:
        placement = self._config.placement
        resources = {"camera": placement.camera_resource} if placement.camera_resource else {}
        return self._spawn(
            CameraActor,
            name,
            actor_name(self._config.store, name),
            detector=self._detector,
            classifier=self._classifier,
            rules=self._rules,
            tracker=self._config.tracker,
            recording=RecordingPlace(
                self._config.store,
                spool_root(self._config),
                self._config.storage.min_free_bytes,
            ),
            clock=self._clock,
            options={
                "num_cpus": placement.camera_cpus,
                "resources": resources,
                "scheduling_strategy": "SPREAD" if resources else self._here(),
            },
        )

    def _spawn(
        self,
        kind: type,
        role: str,
        *args: Any,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> ActorHandle[Any]:
        where = options or {"num_cpus": 0, "scheduling_strategy": self._here()}
        actor: Any = (
            ray.remote(kind)
            .options(
                name=actor_name(self._config.store, role),
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=-1,
                max_concurrency=16 if kind is RulesActor else 64,
                **where,
            )
            .remote(*args, **kwargs)
        )
        handle: ActorHandle[Any] = actor
        return handle

    def _here(self) -> NodeAffinitySchedulingStrategy:
        return NodeAffinitySchedulingStrategy(self._node_id, soft=False)

    def _group_of(self, camera_id: str) -> ActorHandle[Any] | None:
        self._roster.get(camera_id)
        name = self._roster.group_of(camera_id)
        return None if name is None else self._groups.get(name)

    def _status_of(self, camera: CameraConfig) -> CameraStatus:
        if not camera.enabled:
            state = CameraState.DISABLED
        elif (status := self._statuses.get(camera.id)) is not None:
            return status
        else:
            state = CameraState.CONNECTING
        return CameraStatus(
            id=camera.id, source=redact(camera.source), state=state, enabled=camera.enabled
        )

    async def _watch(self) -> None:
        """Ask every group how it is; one that came back empty-handed gets its cameras again."""
        while True:
            checks: list[Coroutine[Any, Any, Any]] = [
                *(self._check(name) for name in list(self._groups)),
                *(self._check_recorder(name) for name in list(self._recorders)),
            ]
            if self._valkey is not None:
                checks.append(asyncio.to_thread(self._valkey.ensure_running))
            # Nothing may end this: unwatched, all cameras would end with their leases.
            for outcome in await asyncio.gather(*checks, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    _log.error("while watching: %r", outcome, exc_info=outcome)
            await asyncio.sleep(_CHECK_S)

    async def _check(self, name: str) -> None:
        group = self._groups[name]
        try:
            statuses: list[CameraStatus] = await asyncio.wait_for(
                group.statuses.remote(), _ANSWER_S
            )
            node_id: str = await asyncio.wait_for(group.node_id.remote(), _ANSWER_S)
        except Exception as error:  # noqa: BLE001 - dead, restarting, unreachable: same answer
            _log.warning("%s does not answer: %s", name, error)
            return
        members = self._roster.groups(self._config.placement.cameras_per_actor).get(name, [])
        if {status.id for status in statuses} != {camera.id for camera in members}:
            group.set_cameras.remote(members)
        for status in statuses:
            self._statuses[status.id] = status
        if name in self._groups:  # not taken away meanwhile
            self._give_recorder(name, node_id)

    def _give_recorder(self, name: str, node_id: str) -> None:
        """See that a group has a recorder on its node, where its spools are."""
        known = self._recorders.get(name)
        if known is not None and known.node_id == node_id:
            return
        if known is not None:
            ray.kill(known.actor)
        role = f"recorder-{name}-{node_id[:8]}"
        actor = self._spawn(
            RecorderActor,
            role,
            actor_name(self._config.store, role),
            self._config,
            rules=self._rules,
            clock=self._clock,
            options={
                "num_cpus": 0,
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
            },
        )
        self._recorders[name] = _Recorder(actor, node_id)

    async def _check_recorder(self, name: str) -> None:
        recorder = self._recorders[name]
        try:
            stats: UploaderStats = await asyncio.wait_for(recorder.actor.stats.remote(), _ANSWER_S)
        except Exception as error:  # noqa: BLE001 - dead, restarting, unreachable: same answer
            _log.warning("the recorder of %s does not answer: %s", name, error)
            return
        self._spools[name] = stats
        if name not in self._groups and not stats.waiting and not stats.interrupted:
            ray.kill(recorder.actor)
            self._recorders.pop(name, None)
            self._spools.pop(name, None)

    def _listen(self) -> None:
        """Take commands off the event store's stream."""
        loop = asyncio.get_running_loop()

        def execute(camera_id: str, command: RecordCommand) -> RecordingAnswer:
            answer = asyncio.run_coroutine_threadsafe(self.record(camera_id, command), loop)
            return answer.result(_ANSWER_S)

        self._commands = CommandConsumer(
            self._store_url, store_id=self._config.store, execute=execute, clock=self._clock
        )
        self._commands.start()

    async def _tidy(self) -> None:
        """Delete what retention does not allow to stay, now and then."""
        rules = self._rules
        if rules is None:
            return

        def drop_file(event_id: str, uri: str, reason: str) -> bool:
            answer: Any = rules.drop_file.remote(event_id, uri, reason)
            return bool(ray.get(answer, timeout=_ANSWER_S))

        self._retention = Retention(
            object_store(self._config),
            EventStore(self._store_url),
            drop_file,
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


async def _settled(refs: Sequence[Any]) -> None:
    """Wait for answers, but not for ever, and whatever they are."""
    if refs:
        waits = (asyncio.wait_for(ref, _ANSWER_S) for ref in refs)
        for outcome in await asyncio.gather(*waits, return_exceptions=True):
            if isinstance(outcome, Exception):
                _log.warning("while stopping: %s", outcome)
