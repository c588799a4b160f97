"""`/healthz` and `/metrics`: the state of each part, and its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from enum import StrEnum
from http import HTTPStatus
from typing import Final, TypeVar

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel
from starlette.responses import JSONResponse

from serve.api.guard import authenticated
from serve.api.protocols import CameraControl, EventSource, HealthCheck, HealthReport
from storeguard.camera.status import CameraState, CameraStatus
from storeguard.config.addresses import redact
from storeguard.config.store import ApiSettings
from storeguard.inference.batcher import BatcherStats

T = TypeVar("T")

_PART_S: Final = 5.0
_OLD_BACKLOG_S: Final = 60.0


class State(StrEnum):
    """A part's state: `failed` makes the response a 503, `degraded` does not."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


class Part(BaseModel):
    """The state of one part, and why."""

    status: State
    detail: str | None = None


class HealthAnswer(BaseModel):
    """The state of the whole, which is that of its worst part."""

    status: State
    parts: dict[str, Part]


def health_router(
    *,
    events: EventSource,
    cameras: CameraControl,
    health: HealthCheck,
    settings: ApiSettings,
) -> APIRouter:
    """The routes at the root."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/healthz",
        response_model=HealthAnswer,
        responses={HTTPStatus.SERVICE_UNAVAILABLE: {"model": HealthAnswer}},
    )
    async def healthz(request: Request) -> Response:
        """200 while events are detected, stored and found; 503 otherwise. Needs no token."""
        store, report, statuses = await asyncio.gather(
            _bounded(events.ping()),
            _bounded(health()),
            _bounded(cameras.list()),
        )
        parts = {
            "store": Part(status=State.OK) if store is None else _failed(store),
            **_reported(report),
            "cameras": _cameras_part(statuses),
            "recording": _recording_part(statuses, report),
        }
        worst = max((part.status for part in parts.values()), key=list(State).index)
        if not authenticated(settings, request.headers):  # the state is public, details are not
            parts = {name: Part(status=part.status) for name, part in parts.items()}
        answer = HealthAnswer(status=worst, parts=parts)
        status = HTTPStatus.SERVICE_UNAVAILABLE if worst is State.FAILED else HTTPStatus.OK
        return JSONResponse(answer.model_dump(mode="json", exclude_none=True), status_code=status)

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters and gauges in Prometheus' text format. No label names a person."""
        store, report, statuses = await asyncio.gather(
            _bounded(events.ping()),
            _bounded(health()),
            _bounded(cameras.list()),
        )
        registry = CollectorRegistry(auto_describe=False)
        registry.register(
            _Snapshot(
                store_up=store is None,
                report=report if isinstance(report, HealthReport) else None,
                cameras=statuses if isinstance(statuses, list) else [],
            )
        )
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


async def _bounded(call: Awaitable[T]) -> T | Exception:
    """The result, or why there was none within a few seconds."""
    try:
        async with asyncio.timeout(_PART_S):
            return await call
    except Exception as error:  # noqa: BLE001 - a part's fault is its state, not a failure of this route
        return error


def _failed(error: object) -> Part:
    text = redact(str(error)) or type(error).__name__
    return Part(status=State.FAILED, detail=text)


def _reported(report: HealthReport | Exception) -> dict[str, Part]:
    if isinstance(report, Exception):
        return {"journal": _failed(report), "detector": _failed(report)}
    parts = {"journal": _journal_part(report), "detector": _detector_part(report)}
    if report.classifier is not None or report.classifier_error is not None:
        parts["classifier"] = _classifier_part(report.classifier or report.classifier_error)
    for name, queue in report.attributes.items():
        parts[f"attribute {name}"] = _classifier_part(queue)
    return parts


def _journal_part(report: HealthReport) -> Part:
    shipper = report.shipper
    if shipper is None:
        return Part(status=State.FAILED, detail="the rules do not answer")
    backlog = shipper.backlog
    detail = f"{backlog.events} waiting, {backlog.bytes} bytes"
    if backlog.oldest_s is not None:
        detail += f", oldest {backlog.oldest_s:.1f} s"
    if report.drops is not None and not report.drops.lossless:
        lost = sum(report.drops.entries.values()) + sum(report.drops.unreadable.values())
        return Part(status=State.DEGRADED, detail=f"{detail}; LOST {lost} entries: it was full")
    if (backlog.oldest_s or 0.0) > _OLD_BACKLOG_S:
        return Part(status=State.DEGRADED, detail=f"{detail}; {shipper.last_error}")
    return Part(status=State.OK, detail=detail)


def _detector_part(report: HealthReport) -> Part:
    if report.detector is None:
        return Part(status=State.FAILED, detail=report.detector_error or "it does not answer")
    return Part(status=State.OK, detail=f"{report.detector.waiting} waiting")


def _classifier_part(queue: BatcherStats | str | None) -> Part:
    """Other events do not depend on a classifier, so the worst is `degraded`."""
    if isinstance(queue, BatcherStats):
        return Part(status=State.OK, detail=f"{queue.waiting} waiting")
    return Part(status=State.DEGRADED, detail=queue or "it does not answer")


def _cameras_part(statuses: list[CameraStatus] | Exception) -> Part:
    if isinstance(statuses, Exception):
        return _failed(statuses)
    faulty = [f"{status.id}: {status.fault}" for status in statuses if status.fault]
    if faulty:  # degraded only: restarting this server would repair no camera
        return Part(status=State.DEGRADED, detail=", ".join(faulty))
    return Part(status=State.OK, detail=f"{len(statuses)} cameras")


def _recording_part(
    statuses: list[CameraStatus] | Exception, report: HealthReport | Exception
) -> Part:
    """Events are stored without their video too, so the worst is `degraded`."""
    if isinstance(statuses, Exception) or isinstance(report, Exception):
        return Part(status=State.DEGRADED, detail="unknown: the supervisor does not answer")
    faults = [f"{one.id}: {one.recording_error}" for one in statuses if one.recording_error]
    for name, spool in report.spools.items():
        if (spool.oldest_s or 0.0) > _OLD_BACKLOG_S:
            faults.append(
                f"{name}: {spool.waiting} files wait, the oldest for {spool.oldest_s:.0f} s: "
                f"{spool.last_error}"
            )
    if faults:
        return Part(status=State.DEGRADED, detail="; ".join(faults))
    waiting = sum(spool.waiting for spool in report.spools.values())
    return Part(status=State.OK, detail=f"{waiting} files wait to be stored")


class _Snapshot:
    """The figures of one moment as Prometheus metrics."""

    def __init__(
        self, *, store_up: bool, report: HealthReport | None, cameras: list[CameraStatus]
    ) -> None:
        self._store_up = store_up
        self._report = report
        self._cameras = cameras

    def collect(self) -> Iterator[Metric]:
        """All metric families."""
        yield _gauge("storeguard_store_up", "1 while the event store answers", self._store_up)
        yield from self._per_camera()
        if self._report is not None:
            yield from _pipeline(self._report)
            yield from _storage(self._report)

    def _per_camera(self) -> Iterator[Metric]:
        cameras = self._cameras
        up = GaugeMetricFamily(
            "storeguard_camera_up",
            "1 while it plays and is watched at the requested rate",
            labels=["camera"],
        )
        for camera in cameras:
            up.add_metric([camera.id], float(camera.state is CameraState.PLAYING))
        yield up
        states = GaugeMetricFamily(
            "storeguard_camera_state", "1 for the state it is in", labels=["camera", "state"]
        )
        for camera in cameras:
            for state in CameraState:
                states.add_metric([camera.id, state.value], float(camera.state is state))
        yield states
        for name, text, field in (
            ("recording", "1 while a clip is being written", "recording"),
            ("recording_paused", "1 while the disk is too full to record", "recording_paused"),
            ("fps_in", "frames a second arriving", "fps_in"),
            ("fps_processed", "frames a second detected and followed", "fps_processed"),
            ("people_in_view", "people seen in the last processed frame", "people_in_view"),
        ):
            gauge = GaugeMetricFamily(f"storeguard_camera_{name}", text, labels=["camera"])
            for camera in cameras:
                value = getattr(camera, field)
                if value is not None:
                    gauge.add_metric([camera.id], float(value))
            yield gauge
        for name, text, field in (
            ("frames_in", "frames read", "frames_in"),
            ("frames_decoded", "frames decoded", "frames_decoded"),
            ("frames_processed", "frames detected and followed", "frames_processed"),
            ("reconnects", "connections made again", "reconnects"),
            ("events", "events raised", "num_events"),
            ("clips", "clip files finished", "clips"),
            ("clips_judged", "clips that the clip classifier gave a score to", "clips_judged"),
            ("looks_taken", "crops that attribute classifiers gave a label to", "looks_taken"),
        ):
            counter = CounterMetricFamily(f"storeguard_camera_{name}", text, labels=["camera"])
            for camera in cameras:
                counter.add_metric([camera.id], float(getattr(camera, field)))
            yield counter
        yield from self._per_camera_and_part()

    def _per_camera_and_part(self) -> Iterator[Metric]:
        dropped = CounterMetricFamily(
            "storeguard_camera_frames_dropped", "frames lost, by cause", labels=["camera", "cause"]
        )
        latency = GaugeMetricFamily(
            "storeguard_camera_step_seconds",
            "median time of a step over the last frames",
            labels=["camera", "step"],
        )
        seen = GaugeMetricFamily(
            "storeguard_camera_last_frame_timestamp_seconds",
            "capture time of the last frame",
            labels=["camera"],
        )
        for camera in self._cameras:
            for cause, n in camera.dropped.items():
                dropped.add_metric([camera.id, cause], float(n))
            for step, value_ms in camera.latency_ms.items():
                if value_ms is not None:
                    latency.add_metric([camera.id, step], value_ms / 1000)
            if camera.last_frame_at is not None:
                seen.add_metric([camera.id], camera.last_frame_at.timestamp())
        yield from (dropped, latency, seen)


def _pipeline(report: HealthReport) -> Iterator[Metric]:
    if (shipper := report.shipper) is not None:
        backlog = shipper.backlog
        yield _gauge("storeguard_journal_backlog_events", "entries waiting", backlog.events)
        yield _gauge("storeguard_journal_backlog_bytes", "their size", backlog.bytes)
        yield _gauge(
            "storeguard_journal_backlog_age_seconds", "age of the oldest", backlog.oldest_s or 0.0
        )
        for name in ("shipped", "created", "updated", "unchanged", "reshipped", "trimmed"):
            yield _counter(
                f"storeguard_shipper_{name}", f"versions of events {name}", getattr(shipper, name)
            )
        yield _counter("storeguard_shipper_retries", "attempts that failed", shipper.retries)
    if report.drops is not None:
        drops = CounterMetricFamily(
            "storeguard_journal_dropped", "what a full journal dropped", labels=["what", "type"]
        )
        for what in ("entries", "unreadable"):
            for kind, n in getattr(report.drops, what).items():
                drops.add_metric([what, kind], float(n))
        yield drops
    if report.detector is not None:
        yield from _queue("detector", "frames", report.detector)
    if report.classifier is not None:
        yield from _queue("classifier", "clips", report.classifier)
    yield from _attribute_queues(report)


_QUEUE_COUNTS = ("submitted", "answered", "refused", "failed", "batches")


def _queue(model: str, items: str, stats: BatcherStats) -> Iterator[Metric]:
    yield _gauge(f"storeguard_{model}_waiting", f"{items} waiting", stats.waiting)
    for name in _QUEUE_COUNTS:
        yield _counter(
            f"storeguard_{model}_{name}", f"{items} (or batches) {name}", getattr(stats, name)
        )


def _attribute_queues(report: HealthReport) -> Iterator[Metric]:
    queues = {name: one for name, one in report.attributes.items() if isinstance(one, BatcherStats)}
    if not queues:
        return
    waiting = GaugeMetricFamily(
        "storeguard_attribute_waiting", "crops waiting", labels=["attribute"]
    )
    for name, stats in queues.items():
        waiting.add_metric([name], float(stats.waiting))
    yield waiting
    for what in _QUEUE_COUNTS:
        family = CounterMetricFamily(
            f"storeguard_attribute_{what}", f"crops (or batches) {what}", labels=["attribute"]
        )
        for name, stats in queues.items():
            family.add_metric([name], float(getattr(stats, what)))
        yield family


def _storage(report: HealthReport) -> Iterator[Metric]:
    spools = report.spools.values()
    yield _gauge("storeguard_spool_waiting", "files to store", sum(s.waiting for s in spools))
    yield _gauge("storeguard_spool_bytes", "their size", sum(s.waiting_bytes for s in spools))
    yield _gauge(
        "storeguard_spool_age_seconds",
        "age of the oldest",
        max((s.oldest_s or 0.0 for s in spools), default=0.0),
    )
    for name, text in (
        ("clips", "clips stored"),
        ("snapshots", "pictures stored"),
        ("lost", "files lost before they were stored"),
        ("retries", "attempts that failed"),
    ):
        yield _counter(f"storeguard_storage_{name}", text, sum(getattr(s, name) for s in spools))
    if (kept := report.retention) is not None:
        yield _gauge("storeguard_storage_bytes", "size of all stored files", kept.bytes)
        yield _counter("storeguard_retention_deleted", "files deleted by age or size", kept.deleted)
    if (commands := report.commands) is not None:
        family = CounterMetricFamily(
            "storeguard_commands", "messages on the command stream", labels=["outcome"]
        )
        for name in ("done", "refused", "invalid", "foreign", "stale"):
            family.add_metric([name], float(getattr(commands, name)))
        yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=float(value))
