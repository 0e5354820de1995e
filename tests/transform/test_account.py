"""What passes did is told by pass, rule, reason and place, and where the time went."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from graphforge.transform import NearMiss, PassRecord, Pipeline, explain, idle_notes, near_misses, pass_times
from tests.transform.toys import DropDoubleNeg, ReluToClip, parse


def record(
    name: str,
    misses: Mapping[str, int] | None = None,
    *,
    changes: int = 0,
    seconds: float = 0.0,
    source: str = "",
) -> PassRecord:
    found = tuple(
        NearMiss(name, reason, count, tuple(f"v{index} = Add" for index in range(min(count, 3))))
        for reason, count in (misses or {}).items()
    )
    return PassRecord(name, name, seconds, 10, 10 - changes, changes, (), found, source)


def test_reasons_with_their_places_ours_after_theirs_and_the_frequent_first() -> None:
    text = explain(
        [
            record("fold-batch-norm", {"no constant": 1, "other users": 7}),
            record("my-fuse", {"wrong axis": 1}, changes=2, source="/elsewhere/mine.py"),
        ]
    )
    assert text == (
        "near misses, what nearly fired and why it did not:\n"
        "  my-fuse: wrong axis\n"
        "      v0 = Add\n"
        "  fold-batch-norm: other users  (7 times)\n"
        "      v0 = Add\n"
        "      v1 = Add\n"
        "      v2 = Add\n"
        "  fold-batch-norm: no constant\n"
        "      v0 = Add"
    )


def test_a_rule_is_named_where_it_is_not_the_pass() -> None:
    miss = NearMiss("ConvAdd", "no constant", 1, ())
    assert "  fold: no constant" in explain([replace(record("fold"), near_misses=(replace(miss, rule="fold"),))])
    assert "  fold, ConvAdd: no constant" in explain([replace(record("fold"), near_misses=(miss,))])


def test_a_pass_that_runs_again_meets_the_same_places() -> None:
    (found,) = near_misses([record("fold", {"reason": 2}), record("fold", {"reason": 2})])
    assert found == ("fold", NearMiss("fold", "reason", 2, ("v0 = Add", "v1 = Add")))


def test_what_is_more_than_a_screen_is_counted() -> None:
    text = explain([record("fold", {f"reason {index}": 1 for index in range(30)})], most=5)
    assert text.count("fold: reason") == 5
    assert text.endswith("and 25 more reasons, which the manifest lists: passes[].near_misses")


def test_passes_that_are_not_ours_and_changed_nothing_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = str(tmp_path / "mine.py")
    records = [
        record("ours"),
        record("idle", {"wrong axis": 1}, source=mine),
        record("sometimes", source=mine),
        record("sometimes", source=mine, changes=3),
    ]
    assert explain(records).startswith("passes of your own that changed nothing:\n  idle  (mine.py)\n\nnear misses")
    assert idle_notes(records) == ["pass idle (mine.py) changed nothing; nearest: wrong axis at v0 = Add"]
    assert explain([record("ours")]) == "near misses: none"


def test_times_add_up_over_runs_the_slowest_first() -> None:
    text = pass_times(
        [
            record("quick", seconds=0.001, changes=1),
            record("slow", seconds=0.002),
            record("quick", seconds=0.007, changes=2),
        ]
    )
    assert text.splitlines() == [
        "       ms  share  changes   nodes  pass",
        "      8.0   80 %        3      -3  quick  (2 runs)",
        "      2.0   20 %                   slow",
        "     10.0                          all",
    ]


def test_the_records_of_a_run_know_where_passes_come_from_and_survive_json() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Neg(x) y = Relu(a) }")
    records = Pipeline([DropDoubleNeg(), ReluToClip()]).run(model)
    assert [Path(one.source).name for one in records] == ["toys.py", "toys.py"]
    from graphforge.passes.fold_constants import FoldConstants

    assert [one.source for one in Pipeline([FoldConstants()]).run(model)] == [""]
    back = [PassRecord.from_dict(json.loads(json.dumps(one.to_dict()))) for one in records]
    assert back == records


def test_a_record_of_an_earlier_release_is_read() -> None:
    old = {key: value for key, value in record("fold", {"reason": 1}).to_dict().items() if key != "source"}
    assert PassRecord.from_dict(old) == record("fold", {"reason": 1})
