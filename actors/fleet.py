"""The fleet: a store's camera actors and their uploaders, started, watched and stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NamedTuple

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.camera import CameraActor
from actors.models import Models
from actors.naming import NAMESPACE, actor_name, spawn
from actors.uploader import UploaderActor, spool_root
from storeguard.camera.status import CameraState, CameraStatus
from storeguard.clock import Clock
from storeguard.config.addresses import shown
from storeguard.config.roster import Roster
from storeguard.config.store import CameraConfig, StoreConfig
from storeguard.recording.recorder import RecordingPlace
from storeguard.recording.uploader import UploaderStats

ANSWER_S = 10.0
_LEAVE_S = 60.0  # for the last verdicts, and clips finished on a slow disk
_STOP_S = 30.0  # what a kill then cuts short is recovered at the next start
_SILENT: Final = {
    "state": CameraState.RECONNECTING,
    "state_reason": None,
    "last_error": "the process that runs it does not answer",
    "fps_in": None,
    "fps_processed": None,
    "people_in_view": 0,
    "recording": False,
}
_log = logging.getLogger(__name__)


class _Uploader(NamedTuple):
    actor: ActorHandle[Any]
    node_id: str


class Fleet:
    """Runs the roster's cameras in camera actors, each with an uploader on its node.

    Args:
        config: the store's configuration.
        roster: which cameras there are, and which actor runs which.
        models: handles of the model deployments.
        rules: the rules actor.
        here: placement on the supervisor's node, for cameras that need no resource.
        clock: time; None takes the machine's.
    """

    def __init__(
        self,
        config: StoreConfig,
        roster: Roster,
        *,
        models: Models,
        rules: ActorHandle[Any],
        here: NodeAffinitySchedulingStrategy,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._roster = roster
        self._models = models
        self._rules = rules
        self._here = here
        self._clock = clock
        self._stopping = False
        self._groups: dict[str, ActorHandle[Any]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._uploaders: dict[str, _Uploader] = {}
        self._spools: dict[str, UploaderStats] = {}
        self._statuses: dict[str, CameraStatus] = {}

    def reconcile(self) -> None:
        """Make the camera actors match the roster; waits for none of them.

        One whose predecessor of the same name is still stopping starts when that has stopped.
        """
        required = self._roster.groups(self._config.placement.cameras_per_actor)
        enabled = {camera.id for cameras in required.values() for camera in cameras}
        self._statuses = {name: one for name, one in self._statuses.items() if name in enabled}
        for name in [name for name in self._groups if name not in required]:
            self._leaving[name] = asyncio.create_task(
                self._stop_group(name, self._groups.pop(name))
            )
        for name, cameras in required.items():
            if name in self._leaving:
                continue
            if name not in self._groups:
                self._groups[name] = self._spawn_group(name)
            # Not awaited for an answer: an unreachable node must not stop the others.
            self._groups[name].set_cameras.remote(cameras)

    async def check(self) -> list[BaseException]:
        """Request every actor's status; one that Ray has restarted gets its cameras again.

        Returns:
            The errors; an actor that does not answer is only logged.
        """
        checks: list[Coroutine[Any, Any, None]] = [
            *(self._check(name, group) for name, group in self._groups.items()),
            *(self._check_uploader(name, one) for name, one in self._uploaders.items()),
        ]
        outcomes = await asyncio.gather(*checks, return_exceptions=True)
        return [outcome for outcome in outcomes if outcome is not None]

    def lacks_a_group(self) -> bool:
        """Whether a required group neither runs nor is stopping, so that it has to be started."""
        required = self._roster.groups(self._config.placement.cameras_per_actor)
        return any(name not in self._groups and name not in self._leaving for name in required)

    async def stop(self) -> None:
        """End all cameras, then the uploaders, which store what these have left."""
        self._stopping = True
        await wait_for_answers([*self._leaving.values()], within_s=_LEAVE_S)
        await wait_for_answers(
            [group.stop.remote() for group in self._groups.values()], within_s=_STOP_S
        )
        uploaders = [uploader.actor for uploader in self._uploaders.values()]
        await wait_for_answers([actor.stop.remote() for actor in uploaders])
        for actor in [*self._groups.values(), *uploaders]:
            ray.kill(actor)
        self._groups.clear()
        self._uploaders.clear()

    def group_of(self, camera_id: str) -> ActorHandle[Any] | None:
        """The actor that runs a camera; None while it is disabled or not started yet.

        Raises:
            NotFoundError: there is no such camera.
        """
        self._roster.get(camera_id)
        name = self._roster.group_of(camera_id)
        return None if name is None else self._groups.get(name)

    def status_of(self, camera: CameraConfig) -> CameraStatus:
        """How a camera is doing, as last reported."""
        reported = self._statuses.get(camera.id)
        return reported if reported is not None and camera.enabled else camera_status(camera)

    def spools(self) -> dict[str, UploaderStats]:
        """What waits in each group's spools, as last reported."""
        return dict(self._spools)

    # ------------------------------------------------------------------ inside

    async def _stop_group(self, name: str, group: ActorHandle[Any]) -> None:
        """End a group without cutting short what it still records; its name is free afterwards."""
        try:
            await wait_for_answers([group.stop.remote()], within_s=_LEAVE_S)
            ray.kill(group)
            await asyncio.to_thread(_wait_for_death, actor_name(self._config.store, name))
        finally:
            # Only now may its uploader end, once all is stored; see _check_uploader.
            self._leaving.pop(name, None)
            if not self._stopping:
                self.reconcile()

    def _spawn_group(self, name: str) -> ActorHandle[Any]:
        placement = self._config.placement
        resources = {"camera": placement.camera_resource} if placement.camera_resource else {}
        return spawn(
            CameraActor,
            actor_name(self._config.store, name),
            name,
            models=self._models,
            rules=self._rules,
            tracker=self._config.tracker,
            attributes=self._config.attributes,
            recording=RecordingPlace(
                self._config.store,
                spool_root(self._config),
                self._config.storage.min_free_bytes,
            ),
            clock=self._clock,
            options={
                "num_cpus": placement.camera_cpus,
                "resources": resources,
                "scheduling_strategy": "SPREAD" if resources else self._here,
            },
        )

    async def _check(self, name: str, group: ActorHandle[Any]) -> None:
        try:
            statuses: list[CameraStatus] = await asyncio.wait_for(group.statuses.remote(), ANSWER_S)
            node_id: str = await asyncio.wait_for(group.node_id.remote(), ANSWER_S)
        except Exception as error:  # noqa: BLE001 - dead, restarting, unreachable: same answer
            _log.warning("%s does not answer: %s", name, error)
            if self._groups.get(name) is group:
                self._mark_silent(name)
                if isinstance(error, ActorDiedError):  # Ray will not restart it: its lease ran out
                    self._groups.pop(name)
            return
        if self._groups.get(name) is not group:  # removed meanwhile
            return
        members = self._members_of(name)
        if {status.id for status in statuses} != {camera.id for camera in members}:
            group.set_cameras.remote(members)
        for status in statuses:
            self._statuses[status.id] = status
        self._give_uploader(name, node_id)

    def _members_of(self, name: str) -> list[CameraConfig]:
        return self._roster.groups(self._config.placement.cameras_per_actor).get(name, [])

    def _mark_silent(self, name: str) -> None:
        """Mark a group's cameras as not running: their last reports are outdated."""
        for camera in self._members_of(name):
            reported = self._statuses.get(camera.id)
            if reported is not None:
                self._statuses[camera.id] = reported.model_copy(update=_SILENT)

    def _give_uploader(self, name: str, node_id: str) -> None:
        """Start a group's uploader on its node, where its spools are, if it has none there."""
        known = self._uploaders.get(name)
        if known is not None and known.node_id == node_id:
            return
        if known is not None:
            ray.kill(known.actor)
        role = actor_name(self._config.store, f"uploader-{name}-{node_id[:8]}")
        actor = spawn(
            UploaderActor,
            role,
            role,
            self._config,
            rules=self._rules,
            clock=self._clock,
            options={
                "num_cpus": 0,
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
            },
        )
        self._uploaders[name] = _Uploader(actor, node_id)

    async def _check_uploader(self, name: str, uploader: _Uploader) -> None:
        # Noted before the call: a group that is still stopping may have more for it.
        needed = name in self._groups or name in self._leaving
        try:
            stats: UploaderStats = await asyncio.wait_for(uploader.actor.stats.remote(), ANSWER_S)
        except Exception as error:  # noqa: BLE001 - dead, restarting, unreachable: same answer
            _log.warning("the uploader of %s does not answer: %s", name, error)
            if isinstance(error, ActorDiedError) and self._uploaders.get(name) is uploader:
                self._uploaders.pop(name)  # Ray will not restart it; a group that runs gets another
            return
        if self._uploaders.get(name) is not uploader:  # replaced meanwhile
            return
        self._spools[name] = stats
        if needed or name in self._groups or stats.waiting or stats.interrupted:
            return
        ray.kill(uploader.actor)
        self._uploaders.pop(name)
        self._spools.pop(name, None)


def camera_status(camera: CameraConfig) -> CameraStatus:
    """The status of a camera that has not reported yet."""
    state = CameraState.CONNECTING if camera.enabled else CameraState.DISABLED
    return CameraStatus(
        id=camera.id, source=shown(camera.source), state=state, enabled=camera.enabled
    )


async def wait_for_answers(answers: Sequence[Any], *, within_s: float = ANSWER_S) -> None:
    """Wait for answers, for at most `within_s` each; errors are logged."""
    if answers:
        waits = (asyncio.wait_for(answer, within_s) for answer in answers)
        for outcome in await asyncio.gather(*waits, return_exceptions=True):
            if isinstance(outcome, Exception):
                _log.warning("while stopping: %s", outcome)


def _wait_for_death(name: str, *, tries: int = 100) -> None:
    """Wait until no actor has a name; ten seconds at most."""
    for _ in range(tries):
        try:
            ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            return
        time.sleep(0.1)
    _log.warning("%s does not end", name)
