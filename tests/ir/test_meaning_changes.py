"""Each change of meaning has its question, its step down and its step up, or says why not; and there are no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from graphforge.ir import HOME_OPSET, schema_of
from graphforge.ir.meaning_changes import MEANING_CHANGES, MeaningChange, spoken_defaults
from graphforge.ir.versions import versions_of
from graphforge.onnx_io.older import RAISES
from graphforge.opsets.audit import LOWEST
from graphforge.passes.opset.engine import LOWEST_OPSET, steps_down_of

ENTRIES = {(change.operator, change.version): change for change in MEANING_CHANGES}
EACH = pytest.mark.parametrize("change", MEANING_CHANGES, ids=lambda change: f"{change.operator}-{change.version}")


def lowering_steps() -> set[tuple[str, int]]:
    return {(operator, v) for v in range(LOWEST_OPSET + 1, HOME_OPSET + 1) for operator in steps_down_of(v)}


def raising_steps() -> set[tuple[str, int]]:
    return {(operator, version) for operator, changes in RAISES.items() for version, _ in changes}


def test_no_change_is_entered_twice() -> None:
    assert len(ENTRIES) == len(MEANING_CHANGES)


@EACH
def test_the_operator_changed_at_that_version(change: MeaningChange) -> None:
    assert change.version in versions_of(change.operator)
    assert change.version > LOWEST


@EACH
def test_a_step_leads_down_over_it_or_the_entry_says_why_not(change: MeaningChange) -> None:
    assert bool(change.no_lowering) != ((change.operator, change.version) in lowering_steps())
    if change.no_lowering:
        assert not LOWEST_OPSET < change.version <= HOME_OPSET


@EACH
def test_a_step_leads_up_over_it_or_the_entry_says_why_not(change: MeaningChange) -> None:
    assert bool(change.no_raising) != ((change.operator, change.version) in raising_steps())


def defaults(schema: Any) -> dict[str, bytes]:
    return {
        name: known.default_value.SerializeToString() if known.default_value.name else b""
        for name, known in schema.attributes.items()
    }


def signature(schema: Any) -> tuple[Any, ...]:
    types = {kind.type_param_str: frozenset(kind.allowed_type_strs) for kind in schema.type_constraints}
    parameters = tuple(
        (one.option, one.is_homogeneous, one.type_str, types.get(one.type_str))
        for one in (*schema.inputs, *schema.outputs)
    )
    attributes = {name: (known.type, known.required) for name, known in schema.attributes.items()}
    counts = (schema.min_input, schema.max_input, schema.min_output, schema.max_output)
    return parameters, attributes, defaults(schema), counts


def both_schemas(steps: set[tuple[str, int]]) -> Iterator[tuple[tuple[str, int], Any, Any]]:
    for operator, version in sorted(steps):
        new, old = schema_of(operator, "", version), schema_of(operator, "", version - 1)
        if new is not None and old is not None and new.since_version == version > LOWEST and not new.deprecated:
            yield (operator, version), new, old


@pytest.mark.parametrize("steps", [lowering_steps(), raising_steps()], ids=["down", "up"])
def test_a_step_over_a_change_that_no_schema_shows_is_entered(steps: set[tuple[str, int]]) -> None:
    unseen = [step for step, new, old in both_schemas(steps) if signature(new) == signature(old)]
    assert [step for step in unseen if step not in ENTRIES] == []


def test_a_default_that_changed_is_entered_with_its_attribute() -> None:
    operators = {operator for operator, _ in lowering_steps() | raising_steps() | set(ENTRIES)}
    steps = {(operator, version) for operator in operators for version in versions_of(operator)}
    for (operator, version), new, old in both_schemas(steps):
        before, now = defaults(old), defaults(new)
        for name in before.keys() & now.keys():
            if before[name] != now[name]:
                assert name in ENTRIES[operator, version].spoken
                assert name in spoken_defaults(operator)
