"""Every rule: its state is built, saved and rebuilt, and no place that needs to know it is missing.

The examples below are the only list of rules here; the tests compare it with the rules' settings.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from storeguard.config.models import RESERVED_ATTRIBUTES
from storeguard.config.zones import RULE_TYPES, Rule, RuleSettings
from storeguard.events.event import EventType, ModelRef
from storeguard.geometry import Line, Zone, Zones
from storeguard.rules.observation import ClipScore
from storeguard.rules.rule import build
from storeguard.rules.scene import Scene
from storeguard.rules.state import RuleCheckpoint, Shape

ROOT = Path(__file__).parents[2]
ZONE = Zone([(0.3, 0.2), (0.7, 0.2), (0.7, 0.9), (0.3, 0.9)])
LINE = Line((0.5, 1.0), (0.5, 0.0))
EXAMPLES: dict[str, tuple[dict[str, Any], Shape]] = {
    "intrusion": ({"anchor": "foot"}, ZONE),
    "loitering": ({"loiter_s": 0.5}, ZONE),
    "line_crossing": ({"settle_s": 0}, LINE),
    "occupancy": ({"max_people": 1, "for_s": 0}, ZONE),
    "person": ({}, None),
    "shoplifting_suspected": ({}, ZONE),
}
each_rule = pytest.mark.parametrize("name", EXAMPLES)


def settings(name: str, **changes: Any) -> Rule:
    rule: Rule = TypeAdapter(Rule).validate_python({"type": name, **EXAMPLES[name][0], **changes})
    return rule


def scene(stage: Any, at_s: float, **people: float) -> Scene:
    return Scene(
        stage.observation(at_s, people), zones=Zones([ZONE]), previous_at=None, new_epoch=False
    )


def test_every_rule_has_an_example() -> None:
    assert set(EXAMPLES) == {kind.model_fields["type"].default for kind in RULE_TYPES}


def test_every_rule_is_in_the_union_that_configurations_are_read_with() -> None:
    def most_special(kind: type[RuleSettings]) -> set[type[RuleSettings]]:
        children = kind.__subclasses__()
        return set[type[RuleSettings]]().union(*map(most_special, children)) or {kind}

    assert most_special(RuleSettings) == set(RULE_TYPES)


@each_rule
def test_every_rule_has_an_event_type(name: str) -> None:
    assert EventType(name).value == name


@each_rule
def test_every_rule_has_a_name_on_the_dashboard(name: str) -> None:
    words = (ROOT / "serve/dashboard/words.js").read_text(encoding="utf-8")
    assert f'["{name}", "' in words


@each_rule
def test_a_rule_is_built_again_with_other_settings_and_keeps_its_state(
    stage: type[Any], name: str
) -> None:
    show = stage()
    shape = EXAMPLES[name][1]
    before = build(settings(name), shape, RuleCheckpoint())
    before.step(scene(show, 0, ann=0.45, bob=0.45))
    before.step(scene(show, 1, ann=0.55, bob=0.55))
    saved = before.checkpoint()
    assert saved != RuleCheckpoint()

    changed = settings(name, post_roll_s=77)
    after = build(changed, shape, saved)

    assert (after.settings, after.shape) == (changed, shape)
    assert after.checkpoint() == saved
    assert before.is_built_for(settings(name), shape)
    assert not before.is_built_for(changed, shape)


@each_rule
def test_attributes_that_a_rule_writes_cannot_be_names_of_classifiers(
    stage: type[Any], name: str
) -> None:
    rule = {"type": name, **EXAMPLES[name][0]}
    others = [{"type": "intrusion"}] if name == "shoplifting_suspected" else []
    show = stage(line=[rule]) if EXAMPLES[name][1] is LINE else stage(rule, *others)
    model = ModelRef(name="m", sha256="1" * 64)
    for index, middle in enumerate((0.45, 0.55, 0.45, 0.55)):
        score = ClipScore("ann", show.START + timedelta(seconds=index), 0.9, 0.5, model)
        observation = show.observation(index, {"ann": middle, "bob": middle})
        show.take(replace(observation, clip_scores=(score,)))

    raised = [event for event in show.events if event.type.value == name]
    written = {attribute for event in show.events for attribute in event.attributes}
    assert raised
    assert written <= RESERVED_ATTRIBUTES


@each_rule
def test_a_rebuilt_state_changes_nothing_in_the_state_before(stage: type[Any], name: str) -> None:
    show = stage()
    shape = EXAMPLES[name][1]
    before = build(settings(name), shape, RuleCheckpoint())
    before.step(scene(show, 0, ann=0.45, bob=0.45))
    saved = before.checkpoint().model_dump_json()

    build(settings(name), shape, before.checkpoint()).step(scene(show, 1, ann=0.55, bob=0.55))

    assert before.checkpoint().model_dump_json() == saved


@each_rule
def test_a_shape_of_the_wrong_kind_is_refused(name: str) -> None:
    wrong = ZONE if EXAMPLES[name][1] is LINE else LINE

    with pytest.raises(TypeError, match="expected a "):
        build(settings(name), wrong, RuleCheckpoint())
