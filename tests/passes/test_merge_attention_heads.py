"""merge-attention-heads: where it fires, why it declines, same numbers."""

from __future__ import annotations

import pytest

from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from graphforge.passes.merge_attention_heads import MergeAttentionHeads
from tests.passes.harness import Outcome, run

_CONSTANTS = (
    "<int64[4] split = {0, 0, 2, 4}, int64[3] join = {0, 0, 8}, int64[5] thirds = {0, 0, 3, 2, 4},"
    " int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}>"
)


def _run(inputs: str, outputs: str, body: str, sizes: dict[str, int] | None = None) -> Outcome:
    text = f"g ({inputs}) => ({outputs}) {_CONSTANTS} {{ {body} }}"
    return run([EliminateDeadCode(), MergeAttentionHeads(), EliminateDeadCode()], text, sizes=sizes or {})


def _heads(name: str, perm: str = "0,2,1,3") -> str:
    return f"{name}4 = Reshape({name}, split) {name}h = Transpose<perm=[{perm}]>({name}4) "


_JOIN = "t = Transpose<perm=[0,2,1,3]>(a) y = Reshape(t, join) "
_THREE = "float[N,S,8] q, float[N,L,8] k, float[N,L,8] v"


@pytest.mark.parametrize("attributes", ["", "<is_causal=1>", "<scale=0.3>"])
def test_heads_split_off_one_by_one(attributes: str) -> None:
    outcome = _run(
        _THREE,
        "float[N,S,8] y",
        _heads("q") + _heads("k") + _heads("v") + f"a = Attention{attributes}(qh, kh, vh) " + _JOIN,
        {"N": 2, "S": 5, "L": 7},
    )
    assert outcome.ops == ["Attention"]
    assert outcome.model.graph[0].attributes["q_num_heads"].as_int() == 2


def test_a_mask_stays_as_it_is() -> None:
    outcome = _run(
        f"{_THREE}, float[N,1,S,L] m",
        "float[N,S,8] y",
        _heads("q") + _heads("k") + _heads("v") + "a = Attention(qh, kh, vh, m) " + _JOIN,
        {"N": 2, "S": 5, "L": 7},
    )
    assert outcome.ops == ["Attention"]


def test_halves_computed_in_float() -> None:
    body = _heads("q") + _heads("k") + _heads("v")
    body += "".join(f"{name}f = Cast<to=1>({name}h) " for name in "qkv")
    outcome = _run(
        _THREE.replace("float[", "float16["),
        "float16[N,S,8] y",
        body + "b = Attention(qf, kf, vf) a = Cast<to=10>(b) " + _JOIN,
        {"N": 2, "S": 5, "L": 7},
    )
    assert outcome.ops == ["Cast", "Cast", "Cast", "Attention", "Cast"]


def test_thirds_of_one_projection() -> None:
    body = "r = Reshape(x, thirds) t0 = Transpose<perm=[2,0,3,1,4]>(r) "
    body += "q = Gather<axis=0>(t0, i0) k = Gather<axis=0>(t0, i1) v = Gather<axis=0>(t0, i2) "
    outcome = _run("float[N,S,24] x", "float[N,S,8] y", body + "a = Attention(q, k, v) " + _JOIN, {"N": 2, "S": 5})
    assert outcome.ops == ["Split", "Attention"]


@pytest.mark.parametrize(
    ("outputs", "body", "reason"),
    [
        (
            "float[N,2,S,4] y",
            _heads("q") + _heads("k") + _heads("v") + "y = Attention(qh, kh, vh)",
            "the heads are not put side by side again, or others read them apart",
        ),
        (
            "float[N,S,8] y, float[N,2,S,4] z",
            _heads("q") + _heads("k") + _heads("v") + "a = Attention(qh, kh, vh) z = Neg(a) " + _JOIN,
            "the heads are not put side by side again, or others read them apart",
        ),
        (
            "float[N,S,8] y",
            _heads("q") + _heads("k") + _heads("v") + "e = Exp(kh) a = Attention(qh, e, vh) " + _JOIN,
            "the heads are not split off by a reshape and a transpose",
        ),
    ],
)
def test_declines(outputs: str, body: str, reason: str) -> None:
    outcome = _run(_THREE, outputs, body, {"N": 2, "S": 5, "L": 5})
    assert outcome.ops.count("Transpose") >= 3
    assert reason in _reasons(outputs, body)


def _reasons(outputs: str, body: str) -> list[str]:
    """Of the pass alone: the outcome above is that of the last one."""
    text = f"g ({_THREE}) => ({outputs}) {_CONSTANTS} {{ {body} }}"
    return run(MergeAttentionHeads(), text, sizes={"N": 2, "S": 5, "L": 5}).reasons


def test_another_split_of_the_heads_stays() -> None:
    """Lengths and heads the wrong way round: the same operators, another meaning."""
    body = _heads("q", "0,1,2,3") + _heads("k", "0,1,2,3") + _heads("v", "0,1,2,3")
    outcome = _run(
        "float[N,2,8] q, float[N,2,8] k, float[N,2,8] v",
        "float[N,2,2,4] y",
        body + "y = Attention(qh, kh, vh) ",
        {"N": 2},
    )
    assert "Transpose" in outcome.ops
