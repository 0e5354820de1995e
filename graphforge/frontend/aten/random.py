"""Random numbers: refused, for no artifact that draws its own can be proven equal to the model."""

from __future__ import annotations

from typing import Any

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__ = ["DRAWS"]

DRAWS = "draws random numbers, so no two runs agree and nothing can be verified"


@lowers(
    "aten.bernoulli.Tensor",
    "aten.bernoulli.default",
    "aten.bernoulli.p",
    "aten.cauchy.default",
    "aten.exponential.default",
    "aten.geometric.default",
    "aten.log_normal.default",
    "aten.multinomial.default",
    "aten.normal.Tensor_Tensor",
    "aten.normal.Tensor_float",
    "aten.normal.float_Tensor",
    "aten.normal.float_float",
    "aten.normal_functional.default",
    "aten.poisson.default",
    "aten.rand.default",
    "aten.rand.generator",
    "aten.rand_like.default",
    "aten.randint.default",
    "aten.randint.low",
    "aten.randint_like.default",
    "aten.randint_like.low_dtype",
    "aten.randn.default",
    "aten.randn.generator",
    "aten.randn_like.default",
    "aten.random.default",
    "aten.random.to",
    "aten.randperm.default",
    "aten.uniform.default",
    "prims.normal.default",
)
def random(op: Emitter, *_: Any, **__: Any) -> Any:
    """Refuse, unless nothing comes of it.

    Raises:
        LoweringError: the numbers are used.
    """
    if op.fx_node is not None and not op.fx_node.users:
        return None
    raise op.fail(
        DRAWS,
        "draw them outside the model and pass them in as an input, or make them a buffer",
    )
