"""A model that goes another way at some sizes than at the example's: it decides by a size, or its rank depends on one.

A capture follows one way, so the artifact is wrong at the sizes of the other, and no artifact is to blame.  The model
is run at both sizes with an eye on what it calls (`runners/way.py`); a way that other data of the same sizes changes
as well says nothing about sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from graphforge.errors import GraphForgeError, argument
from graphforge.runners.arrays import Array
from graphforge.runners.eager import EagerRunner
from graphforge.runners.runner import Runner, underlying
from graphforge.runners.way import Parting, parting

__all__ = ["other_way"]


def other_way(
    reference: Runner, at_example: Sequence[Mapping[str, Array]], there: Sequence[Mapping[str, Array]], sizes: str
) -> tuple[str, ...]:
    """What the model does otherwise at some sizes, where, and the ways out; () where it goes the same way.

    Args:
        reference: the model.
        at_example: inputs of the example's sizes.
        there: inputs of the other ones.
        sizes: those, in words.
    """
    model = underlying(reference)
    if not isinstance(model, EagerRunner):
        return ()
    try:
        ways, others = ([model.way(feeds) for feeds in sets] for sets in (at_example, there))
    except GraphForgeError:  # it takes none of these
        return ()
    found = {parting(one, other) for one, other in product(ways, others)}
    where = next(iter(found))
    if len(found) > 1 or where is None:  # they part elsewhere with other data: then it is not the sizes alone
        return ()
    return _of_dims(where, sizes) if where.is_of_dims else _of_lines(where, sizes)


def _of_dims(where: Parting, sizes: str) -> tuple[str, ...]:
    assert where.one is not None
    assert where.other is not None
    usual, there = (_dims(step.dims) for step in (where.one, where.other))
    return (
        f"the number of dims depends on a size: {where.other.name} gives {there} at {sizes}, and {usual} at the "
        "example's sizes",
        f"at {where.other.place}" if where.other.place else "",
        "a graph has one number of dims at every size: squeeze by their numbers those dims that are 1 at every size, "
        f"take one row as x[:, 0] does, or promise sizes from 2 on ({argument('dynamic_shapes')})",
    )


def _of_lines(where: Parting, sizes: str) -> tuple[str, ...]:
    usual, there = (
        "it ends" if step is None else f"{step.name} at {step.place}" if step.place else step.name
        for step in (where.one, where.other)
    )
    return (
        f"the model itself goes another way at {sizes} than at the example's sizes, and one way was captured",
        f"there: {there}",
        f"at the example's sizes: {usual}",
        "promise sizes at which it goes one way, compile the others apart, or write it so that all go the same way",
    )


def _dims(dims: Sequence[int]) -> str:
    return " and ".join(map(str, dict.fromkeys(dims))) + (" dim" if list(dims) == [1] else " dims")
