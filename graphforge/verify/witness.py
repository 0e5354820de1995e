"""What the reference itself makes of its inputs when its values move by rounding: the runs that verdicts rest on.

A run costs two to five times a plain one, so none is made before somebody asks.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.runners.eager import EagerRunner
from graphforge.runners.runner import Runner

if TYPE_CHECKING:
    from graphforge.verify.rounding import Decision, Ties

__all__ = ["MovedRun", "Witness"]

# No further run is begun once the runs have computed this much (``Moved.work``): who waits for a verdict does not wait
# for minutes. Some 20 seconds on one core; counted and not timed, so that the verdict is the same on every machine.
_WORK = 200_000_000_000


@dataclass(frozen=True, slots=True)
class MovedRun:
    """The reference once more, with its values a step off or its ties settled otherwise.

    Attributes:
        outputs: what it returned, by name.
        decisions: what was decided on the way; empty where the reference cannot be watched.
        tied: the operators where the order of equal values was another than eager's.
        known: what the artifact's runtime is known to compute otherwise.
        work: what it computed; 0 where the reference cannot be watched.
    """

    outputs: Mapping[str, Array]
    decisions: Sequence[Decision] = ()
    tied: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    work: int = 0


@dataclass(slots=True)
class Witness:
    """The reference on one set of inputs, asked again as often as a verdict needs it.

    Args:
        reference: what is right.
        feeds: the inputs.
        work: what all runs together may compute.
        eps: the step of the element type in which the artifact computes, where that has fewer digits.
        lowest_first: of equal values, the one with the lower index comes first in every run.

    Attributes:
        gaps: why something could not be asked, one line each.
    """

    reference: Runner
    feeds: Mapping[str, Array]
    work: int = _WORK
    eps: float = 0.0
    lowest_first: bool = False
    gaps: list[str] = field(default_factory=list)
    _moved: list[MovedRun] = field(default_factory=list)
    _plain: MovedRun | None = None
    _settled: dict[Ties, MovedRun | None] = field(default_factory=dict)
    _exact: Mapping[str, Array] | None = None
    _asked_exact: bool = False
    _done: int = 0

    def exact(self) -> Mapping[str, Array]:
        """The outputs of a float64 run; empty where there cannot be one."""
        if not self._asked_exact:
            self._asked_exact = True
            if isinstance(self.reference, EagerRunner):
                try:
                    wide = self.reference.in_float64()
                    settled = self.lowest_first
                    self._exact = (
                        _watched(wide, self.feeds, 0, 0.0, self._usual, 0.0).outputs
                        if settled
                        else wide.run(self.feeds)
                    )
                except GraphForgeError as error:
                    self.gaps.append(f"a run in float64 could not be made: {error.message}")
        return self._exact or {}

    def in_its_own_digits(self) -> Witness:
        """The same, with every value moved by a step of its own element type; this one where it does so."""
        return Witness(self.reference, self.feeds, self.work, lowest_first=self.lowest_first) if self.eps else self

    def with_lowest_first(self) -> Witness:
        """The same, asked with equal values in the order in which runtimes have them."""
        return Witness(self.reference, self.feeds, self.work, self.eps, lowest_first=True)

    def repeats_itself(self) -> bool:
        """Whether the reference gives the same answer when it is asked twice."""
        one, other = self.reference.run(self.feeds), self.reference.run(self.feeds)
        return all(one[name].tobytes() == other[name].tobytes() for name in one)

    def moved(self, count: int) -> list[MovedRun]:
        """``count`` runs with values a step off, fewer where they compute too much or the reference cannot run so."""
        from graphforge.verify.rounding import Ties

        while len(self._moved) < count and self._done < self.work:
            # Later runs take larger steps and settle ties as runtimes do: they look for decisions that can turn out
            # otherwise, where the first ones measure.
            made = len(self._moved)
            steps = 1.0 if made < 4 else 2.0 if made < 8 else 4.0
            run = self._run(seed=1 + made, steps=steps, ties=self._usual if made < 4 else Ties.FIRST)
            if run is None:
                break
            self._moved.append(run)
        return self._moved[:count]

    def plain(self) -> MovedRun | None:
        """A run as it is, watched."""
        if self._plain is None:
            self._plain = self._run(seed=0, steps=0.0, ties=self._usual)
        return self._plain

    def with_ties_settled(self) -> list[MovedRun]:
        """Runs as they are but for the order of equal values: lower index first, higher index first."""
        from graphforge.verify.rounding import Ties

        return [run for ties in (Ties.FIRST, Ties.LAST) if (run := self._with(ties)) is not None]

    def another_order(self) -> MovedRun | None:
        """The run with the lower index first, where equal values stood in another order than that."""
        from graphforge.verify.rounding import Ties

        if self.lowest_first or not isinstance(self.reference, EagerRunner):
            return None
        run = self._with(Ties.FIRST)
        return run if run is not None and run.tied else None

    def _with(self, ties: Ties) -> MovedRun | None:
        if ties not in self._settled:
            self._settled[ties] = self._run(seed=0, steps=0.0, ties=ties)
        return self._settled[ties]

    @property
    def _usual(self) -> Ties:
        from graphforge.verify.rounding import Ties

        return Ties.FIRST if self.lowest_first else Ties.AS_EAGER

    def _run(self, *, seed: int, steps: float, ties: Ties) -> MovedRun | None:
        try:
            if isinstance(self.reference, EagerRunner):
                run = _watched(self.reference, self.feeds, seed, steps, ties, self.eps)
                self._done += run.work
                return run
            return MovedRun(
                self.reference.run({n: _off(n, array, seed, steps, self.eps) for n, array in self.feeds.items()})
            )
        except GraphForgeError as error:
            if (told := f"a run with its values a step off could not be made: {error.message}") not in self.gaps:
                self.gaps.append(told)
            return None


def _watched(
    reference: EagerRunner, feeds: Mapping[str, Array], seed: int, steps: float, ties: Ties, eps: float
) -> MovedRun:
    import torch

    from graphforge.verify.rounding import Moved

    recurrent = any(isinstance(module, torch.nn.RNNBase) for module in reference.module.modules())
    if eps and steps:  # the artifact rounds what it is given as well
        feeds = {name: _off_unless_whole(name, array, seed, steps, eps) for name, array in feeds.items()}
    mode = Moved(seed=seed, steps=steps, ties=ties, apart=recurrent, eps=eps)
    with mode.on():
        outputs = reference.run(feeds)
    return MovedRun(outputs, mode.decisions, tuple(mode.tied), tuple(mode.known), mode.work)


def _off_unless_whole(name: str, array: Array, seed: int, steps: float, least: float) -> Array:
    """An input as a format with fewer digits may hold it; masks and counts stay as they are."""
    if array.dtype.kind not in "f":
        return array
    return np.where(array == np.rint(array), array, _off(name, array, seed, steps / 2, least))


def _off(name: str, array: Array, seed: int, steps: float, least: float = 0.0) -> Array:
    """An input with every float a step up or down: all that can be moved of a reference that is a file."""
    if array.dtype.kind not in "f" or not steps:
        return array
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    signs = generator.integers(0, 2, array.shape) * 2.0 - 1.0
    eps = float(np.finfo(array.dtype).eps) if array.dtype.itemsize > 1 else 0.0
    return np.asarray(array * (1.0 + signs * (max(eps, least) * steps)), array.dtype)
