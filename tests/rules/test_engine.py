from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeguard.errors import CheckpointError
from storeguard.events.event import Event, EventStatus, ModelRef, event_id_of
from storeguard.rules.engine import CameraRules
from storeguard.rules.observation import Observation
from storeguard.rules.ongoing import Dwell

IN, OUT = 0.5, 0.1
INTRUSION = {"type": "intrusion", "anchor": "foot"}
LOITERING = {"type": "loitering"}
OCCUPANCY = {"type": "occupancy", "max_people": 1, "for_s": 1}
LINE = {"type": "line_crossing"}
PERSON = {"type": "person", "cooldown_s": 5}


def everything(stage: type[Any]) -> Any:
    """A stage with every rule there is."""
    return stage(INTRUSION, LOITERING, OCCUPANCY, PERSON, line=[LINE], person=PERSON)


# --------------------------------------------------------------------------- records


def test_an_event_is_complete(stage: type[Any]) -> None:
    show = stage(INTRUSION)
    model = ModelRef(name="yolo", sha256="ab" * 32)
    rules = CameraRules("shop", show.camera, model)

    (event,) = rules.step(show.observation(1, {"ann": IN}))

    assert event.event_id == event_id_of(
        store_id="shop",
        camera_id="cam",
        zone_id="z",
        person_id="ann",
        rule="intrusion",
        started_at=stage.START + timedelta(seconds=1),
    )
    assert (event.store_id, event.camera_id, event.zone_id) == ("shop", "cam", "z")
    assert event.model == model
    assert event.updated_at == event.started_at == stage.START + timedelta(seconds=1)
    assert event.rule == show.camera.zones[0].rules[0].model_dump(mode="json")
    assert Event.model_validate_json(event.model_dump_json()).event_id == event.event_id


def test_open_events_and_dwell_for_the_overlay(stage: type[Any]) -> None:
    show = stage(INTRUSION, LOITERING, OCCUPANCY | {"max_people": 9}, person=PERSON)
    show.watch(0, 4, ann=IN)
    show.see(4.1, ann=IN, bob=IN)

    # One figure a person and zone, though two rules measure it, and none for the whole picture.
    assert show.rules.dwell() == [Dwell("ann", "z", 4.1), Dwell("bob", "z", 0.0)]
    assert [(e.type.value, e.zone_id, e.person_id) for e in show.rules.open_events()] == [
        ("person", None, "ann"),
        ("intrusion", "z", "ann"),
        ("intrusion", "z", "bob"),
        ("loitering", "z", "ann"),
    ]
    assert {e.event_id for e in show.rules.open_events()} == {e.event_id for e in show.events}


def test_the_overlay_shows_the_longer_of_two_rules_dwells(stage: type[Any]) -> None:
    show = stage(INTRUSION, LOITERING | {"min_hit_ratio": 1.0})
    show.see(0, ann=0.32)  # feet inside, but not all of the box
    show.see(1, ann=IN)
    show.see(2, ann=IN)

    assert show.rules.dwell() == [Dwell("ann", "z", 2.0)]


# --------------------------------------------------------------------------- refusals, replays


def test_another_cameras_observation_is_refused(stage: type[Any]) -> None:
    show = stage(INTRUSION)

    with pytest.raises(ValueError, match="camera 'cam', found one of 'door'"):
        show.rules.step(replace(show.observation(0, {}), camera_id="door"))


def test_time_running_backwards_within_an_epoch_is_refused_and_changes_nothing(
    stage: type[Any],
) -> None:
    show = everything(stage)
    show.watch(0, 5, ann=IN)
    before = show.rules.checkpoint()

    with pytest.raises(ValueError, match="camera 'cam': expected seq 51 to be captured at"):
        show.rules.step(show.observation(4.9, {"ann": IN}))

    assert show.rules.checkpoint() == before


def test_late_observations_of_an_ended_epoch_change_nothing(stage: type[Any]) -> None:
    show = stage(INTRUSION)
    show.see(0, ann=IN)
    late = show.observation(0.2, {"bob": IN})
    show.take(show.observation(1, {"cem": IN}, epoch="b"))
    before = show.rules.checkpoint()

    assert show.take(late) == []
    assert show.rules.checkpoint() == before


def test_the_number_of_remembered_epochs_is_bounded(stage: type[Any]) -> None:
    show = stage(INTRUSION)
    sizes = []
    for epoch in range(200):
        show.take(show.observation(epoch, {}, epoch=f"epoch-{epoch:03}"))
        sizes.append(len(show.rules.checkpoint()))

    assert sizes[-1] == sizes[99] > sizes[9]


# --------------------------------------------------------------------------- epochs and silence


def test_a_new_epoch_ends_the_old_visits_once_grace_has_passed(stage: type[Any]) -> None:
    show = stage(INTRUSION | {"grace_s": 1})
    show.watch(0, 2, **{"a:1": IN})

    show.take(show.observation(2.8, {"b:1": IN}, epoch="b"))
    assert show.closed() == []
    show.take(show.observation(3.1, {"b:1": IN}, epoch="b"))

    assert show.closed() == [("a:1", 0, 2)]


def test_a_new_epoch_before_the_old_one_starts_over(stage: type[Any]) -> None:
    show = stage(INTRUSION | {"cooldown_s": 600}, line=[LINE])
    show.watch(100, 105, ann=IN)

    raised = show.take(show.observation(3, {"ann": IN}, epoch="b"))  # the clock was set back

    assert show.closed() == [("ann", 100, 105)]
    assert [(e.version, e.status.value) for e in raised] == [(2, "closed"), (1, "open")]


@pytest.mark.parametrize(
    ("silence_s", "closes"),
    [(-5, False), (0, False), (9.9, False), (10, False), (10.1, True), (3600, True)],
)
def test_tick_closes_visits_that_no_observation_can_bridge(
    stage: type[Any], silence_s: float, closes: bool
) -> None:
    show = stage(INTRUSION, LOITERING, line=[LINE], person=PERSON)
    show.watch(0, 4, ann=IN)
    now = show.rules.captured_at + timedelta(seconds=silence_s)

    closed = show.rules.tick(now)

    assert [(e.status, e.updated_at) for e in closed] == [(EventStatus.CLOSED, now)] * 3 * closes
    assert {e.ended_at for e in closed} == ({show.rules.captured_at} if closes else set())
    assert show.rules.tick(now) == []
    assert bool(show.rules.open_events()) is not closes


def test_tick_before_anything_was_seen(stage: type[Any]) -> None:
    assert everything(stage).rules.tick(stage.START) == []


def test_close_all_ends_every_event_at_its_last_moment_inside(stage: type[Any]) -> None:
    show = everything(stage)
    show.watch(0, 4, ann=IN, bob=IN)
    at = stage.START + timedelta(seconds=60)

    closed = show.rules.close_all(at)

    assert {e.event_id for e in closed} == {
        e.event_id for e in show.events if e.type.value != "line_crossing"
    }
    assert {(e.status.value, e.ended_at, e.updated_at) for e in closed} == {
        ("closed", stage.START + timedelta(seconds=4), at)
    }
    assert show.rules.close_all(at) == []
    assert show.rules.open_events() == []


# --------------------------------------------------------------------------- reconfiguring


def test_unchanged_rules_keep_their_state(stage: type[Any]) -> None:
    show = everything(stage)
    show.watch(0, 4, ann=IN)
    before = show.rules.checkpoint()

    assert show.rules.reconfigure(show.camera) == []
    assert show.rules.checkpoint() == before


def test_other_rules_do_not_disturb_a_visit(stage: type[Any]) -> None:
    show = stage(LOITERING)
    show.watch(0, 2, ann=IN)

    assert show.rules.reconfigure(stage.configured(LOITERING, OCCUPANCY, line=[LINE])) == []
    show.watch(2.1, 3, ann=IN)

    assert show.statuses() == [("loitering", "open", "ann")]


def test_a_removed_rule_closes_its_events_and_a_new_rule_begins(stage: type[Any]) -> None:
    show = stage(INTRUSION, LOITERING)
    show.watch(0, 4, ann=IN)

    closed = show.rules.reconfigure(stage.configured(LOITERING, person=PERSON))

    assert [(e.type.value, e.status.value, e.version, e.dwell_s) for e in closed] == [
        ("intrusion", "closed", 2, 4)
    ]
    assert [e.type.value for e in show.see(4.1, ann=IN)] == ["person"]
    assert [e.type.value for e in show.rules.reconfigure(stage.configured())] == [
        "person",
        "loitering",
    ]


def test_a_lower_threshold_counts_present_visits_from_their_start(stage: type[Any]) -> None:
    show = stage(LOITERING | {"loiter_s": 60})
    show.watch(0, 10, ann=IN)

    show.rules.reconfigure(stage.configured(LOITERING | {"loiter_s": 5}))
    (event,) = show.see(10.1, ann=IN)

    assert (event.dwell_s, event.rule["loiter_s"]) == (10.1, 5)


def test_a_higher_threshold_leaves_open_events_open(stage: type[Any]) -> None:
    show = stage(LOITERING)
    show.watch(0, 4, ann=IN)

    assert show.rules.reconfigure(stage.configured(LOITERING | {"loiter_s": 60})) == []
    show.watch(4.1, 10, ann=IN)
    show.watch(10.1, 12, ann=OUT)

    assert show.closed() == [("ann", 0, 10)]
    assert {event.rule["loiter_s"] for event in show.events} == {3.0}  # the settings that fired


def test_a_moved_polygon_keeps_visits_inside_both_and_ends_the_others(stage: type[Any]) -> None:
    show = stage(INTRUSION)
    show.watch(0, 4, ann=0.35, bob=0.65)

    moved = [(0.5, 0.2), (0.9, 0.2), (0.9, 0.9), (0.5, 0.9)]
    assert show.rules.reconfigure(stage.configured(INTRUSION, polygon=moved)) == []
    show.watch(4.1, 6, ann=0.35, bob=0.65)

    assert show.closed() == [("ann", 0, 4)]
    assert show.rules.dwell() == [Dwell("bob", "z", 6.0)]


def test_a_camera_cannot_become_another(stage: type[Any]) -> None:
    show = stage(INTRUSION)

    with pytest.raises(ValueError, match="camera 'cam', found 'door'"):
        show.rules.reconfigure(show.camera.model_copy(update={"id": "door"}))


# --------------------------------------------------------------------------- checkpoints


def test_after_a_kill_in_the_middle_of_a_visit_dwell_continues(stage: type[Any]) -> None:
    show = stage(LOITERING)
    show.watch(0, 1.9, ann=IN)
    saved = show.rules.checkpoint()
    unsaved = [show.observation(2 + tenth / 10, {"ann": IN}) for tenth in range(3)]
    for observation in unsaved:
        show.take(observation)

    show.rules = CameraRules("shop", show.camera)  # killed, and started again
    assert show.rules.restore(saved) == []
    for observation in unsaved:
        show.take(observation)  # sent again, as they were not acknowledged
    show.watch(2.3, 6, ann=IN)
    show.watch(6.1, 8, ann=OUT)

    assert show.closed() == [("ann", 0, 6)]
    assert len({event.event_id for event in show.events}) == 1


def test_restoring_under_other_settings_closes_events_of_removed_rules(stage: type[Any]) -> None:
    show = stage(INTRUSION, LOITERING)
    show.watch(0, 4, ann=IN)

    fresh = CameraRules("shop", stage.configured(LOITERING))
    closed = fresh.restore(show.rules.checkpoint())

    assert [(e.type.value, e.status.value, e.dwell_s) for e in closed] == [
        ("intrusion", "closed", 4)
    ]
    assert [e.type.value for e in fresh.open_events()] == ["loitering"]


def test_a_checkpoint_is_json_without_the_source(stage: type[Any]) -> None:
    show = everything(stage)
    camera = show.camera.model_copy(update={"source": "rtsp://user:secret@10.0.0.7/"})
    rules = CameraRules("shop", camera)
    rules.step(show.observation(0, {"ann": IN}))

    document = json.loads(rules.checkpoint())

    assert document["format"] == 1
    assert "secret" not in json.dumps(document)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _: b"", "cannot read"),
        (lambda blob: blob[:-20], "cannot read"),  # half written
        (lambda _: b"\x80\x04N.", "cannot read"),  # something else entirely
        (lambda blob: blob.replace(b'"format":1', b'"format":2'), "cannot read"),
        (lambda blob: blob.replace(b'"store_id":"shop"', b'"store_id":"mall"'), "store 'mall'"),
        (lambda blob: blob.replace(b'"camera_id":"cam"', b'"camera_id":"x"'), "camera 'x'"),
        (
            lambda blob: blob.replace(b'"zone_id":"z","type"', b'"zone_id":"y","type"'),
            "unknown rules",
        ),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(
    stage: type[Any], damage: Any, message: str
) -> None:
    show = everything(stage)
    show.watch(0, 4, ann=IN)
    before = show.rules.checkpoint()

    with pytest.raises(CheckpointError, match=message):
        show.rules.restore(damage(before))

    assert show.rules.checkpoint() == before


# --------------------------------------------------------------------------- properties

PEOPLE = st.dictionaries(
    st.sampled_from(["ann", "bob", "cem"]),
    st.sampled_from([OUT, 0.29, 0.31, 0.49, IN, 0.51, 0.9]),  # outside, by the border, inside
    max_size=3,
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.001, 0.1, 0.1, 0.2, 0.9, 1.1, 1.6, 9.0, 11.0]),  # seconds since before
        PEOPLE,
        st.sampled_from([0.2, 0.36, 0.9]),  # score
        st.sampled_from([False] * 12 + [True]),  # a new epoch
    ),
    min_size=1,
    max_size=40,
)
Steps = list[tuple[float, dict[str, float], float, bool]]
EAGER = [  # without grace or cooldown: as many events as there can be
    {"type": "intrusion", "anchor": "foot", "grace_s": 0, "cooldown_s": 0},
    {"type": "loitering", "loiter_s": 0.001, "grace_s": 0, "update_s": 0.001, "max_gap_s": 0},
    {"type": "occupancy", "max_people": 1, "for_s": 0, "grace_s": 0},
    {"type": "person", "grace_s": 0, "cooldown_s": 0, "min_score": 0.3},
]


def observations(show: Any, steps: Steps, *, only: str | None = None) -> list[Observation]:
    at_s, epoch, out = 0.0, 0, []
    for since_s, people, score, restarted in steps:
        at_s += since_s
        epoch += restarted
        # Ids are unique across epochs, as the camera's are.
        shown: Mapping[str, float] = {
            f"{epoch}:{name}": place
            for name, place in people.items()
            if only is None or name == only
        }
        out.append(show.observation(at_s, shown, epoch=f"e{epoch}", score=score))
    return out


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, eager=st.booleans())
def test_events_open_once_grow_and_close_once(stage: type[Any], steps: Steps, eager: bool) -> None:
    if eager:
        line = [{"type": "line_crossing", "cooldown_s": 0}]
        show = stage(*EAGER, line=line, person=EAGER[-1])
    else:
        show = everything(stage)
    for observation in observations(show, steps):
        show.take(observation)
    show.events += show.rules.close_all(show.rules.captured_at)

    by_id: dict[str, list[Event]] = {}
    for event in show.events:
        by_id.setdefault(event.event_id, []).append(event)
    for records in by_id.values():
        # No two visits share an id, even a millisecond apart: versions count up, one closing.
        assert [e.version for e in records] == list(range(1, len(records) + 1))
        assert [e.ended_at is not None for e in records] == [False] * (len(records) - 1) + [True]
        assert [e.status.value for e in records[:-1]] == ["open"] * (len(records) - 1)
        assert len({(e.type, e.zone_id, e.person_id, e.started_at) for e in records}) == 1
        last = records[-1]
        assert last.ended_at is not None
        assert last.started_at <= last.ended_at <= last.updated_at
        if last.dwell_s is not None:
            assert last.dwell_s == (last.ended_at - last.started_at).total_seconds()
            dwells = [e.dwell_s for e in records if e.dwell_s is not None]
            assert dwells == sorted(dwells)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, name=st.sampled_from(["ann", "bob", "cem"]))
def test_the_events_of_one_person_do_not_depend_on_others(
    stage: type[Any], steps: Steps, name: str
) -> None:
    crowd, alone = (stage(INTRUSION, LOITERING, line=[LINE]) for _ in range(2))
    for observation in observations(crowd, steps):
        crowd.take(observation)
    for observation in observations(alone, steps, only=name):
        alone.take(observation)

    assert [e for e in crowd.events if e.person_id.endswith(name)] == alone.events


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, data=st.data())
def test_a_replay_of_any_part_changes_nothing(
    stage: type[Any], steps: Steps, data: st.DataObject
) -> None:
    show = everything(stage)
    taken = observations(show, steps)
    upto = data.draw(st.integers(1, len(taken)))
    for observation in taken[:upto]:
        show.take(observation)
    before = show.rules.checkpoint()

    for observation in taken[data.draw(st.integers(0, upto - 1)) : upto]:
        assert show.take(observation) == []

    assert show.rules.checkpoint() == before


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, data=st.data())
def test_restarting_anywhere_gives_the_events_of_an_uninterrupted_run(
    stage: type[Any], steps: Steps, data: st.DataObject
) -> None:
    whole, broken = everything(stage), everything(stage)
    taken = observations(whole, steps)
    restarts = data.draw(st.sets(st.integers(0, len(taken) - 1)))

    for index, observation in enumerate(taken):
        whole.take(observation)
        if index in restarts:
            saved = broken.rules.checkpoint()
            broken.rules = CameraRules("shop", broken.camera)
            assert broken.rules.restore(saved) == []
        broken.take(observation)

    assert broken.events == whole.events
    assert broken.rules.checkpoint() == whole.rules.checkpoint()


def test_a_day_of_people_leaves_nothing_behind(stage: type[Any]) -> None:
    show = everything(stage)
    largest = 0
    for index in range(
        1000
    ):  # one person after the other crosses the line and the zone, and leaves
        for step, place in enumerate((0.35, 0.65)):
            show.see(index * 43 + step * 3, **{f"p{index}": place})
        if index % 50 == 0:
            largest = max(largest, len(show.rules.checkpoint()))

    assert len({event.person_id for event in show.events}) == 1000
    assert largest < 6000
