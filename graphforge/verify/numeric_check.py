"""NumericCheck: the graph in ONNX Runtime around each pass; the first pass that changes a result is named.

It runs and compares as ``bisect`` and ``verify`` do, with the same tolerances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphforge.errors import GraphForgeError, argument
from graphforge.runners.arrays import Array
from graphforge.runners.image_by_image import ImageByImageRunner
from graphforge.runners.inputs import feeds_for
from graphforge.runners.padding import UnpaddedRunner
from graphforge.verify.tolerance import Tolerances, for_model
from graphforge.verify.verify import compare_outputs

if TYPE_CHECKING:
    from graphforge.ir import Model
    from graphforge.runners.runner import Runner
    from graphforge.transform import Pass, PassRecord

__all__ = ["NumericCheck", "feeds_for", "run_as_written"]


@dataclass
class NumericCheck:
    """An instrument for ``Pipeline.run`` and ``compile(..., instruments=[...])``.

    Attributes:
        feeds: inputs by name; None draws seeded ones, with ``sizes`` for named dims (2 where a name is missing).
        sizes: sizes of named dims.
        seed: of the drawn inputs.
        tolerances: what counts as equal; None takes the defaults of verification.  The same NaN or Inf at the same
            place is not a change.
    """

    feeds: Mapping[str, Array] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    tolerances: Tolerances | None = None
    notes: list[str] = field(default_factory=list)
    _expected: dict[str, Array] | None = field(default=None, repr=False)

    def before(self, pass_: Pass, model: Model) -> None:
        """Take the results before the first pass; later ones are compared to those of the pass before.

        Raises:
            GraphForgeError: the graph does not run before any pass.
        """
        if self.feeds is None:
            self.feeds = feeds_for(model, self.sizes, seed=self.seed)
        if self._expected is None:
            try:
                self._expected = run_as_written(model, self.feeds)
            except GraphForgeError as error:
                raise error.with_notes(
                    f"passes are checked by running the graph between them; leave {argument('check_passes')} out here"
                ) from error

    def after(self, pass_: Pass, model: Model, record: PassRecord) -> None:
        """Compare with the results before the pass.

        Raises:
            GraphForgeError: a result is different, or the graph does not run any more.
        """
        if not record.changes:
            return
        assert self._expected is not None
        assert self.feeds is not None
        from graphforge.passes.compute_where_kernels_are import runnable
        from graphforge.transform.seams import whose

        way_out = whose(pass_) or f"leave the pass out, or report it with: {argument('pipeline', record.spec)}"
        try:
            found = run_as_written(model, self.feeds)
        except GraphForgeError as error:
            raise GraphForgeError(
                f"after pass {pass_.name} the graph does not run in ONNX Runtime any more: {error.message}",
                *error.notes,
                way_out,
            ) from error
        if list(found) != list(self._expected):
            raise GraphForgeError(f"pass {pass_.name} changes the outputs from {list(self._expected)} to {list(found)}")
        tolerances = for_model(self.tolerances, runnable(model)).loosen(
            because="a pass is compared with what was there before it", allow_nonfinite=True
        )
        for output in compare_outputs(self._expected, found, tolerances):
            if not output.passed:
                raise GraphForgeError(f"pass {pass_.name} changes output {output.name!r}: {output.reason}", way_out)
        self._expected = found


def run_as_written(model: Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of the graph as written: the runtime's own fusions would blur who did what.

    What it has no kernels for is cast around, as in what is delivered; our own operators, and those that are declared
    with a function, are computed by their functions until a pass has lowered them.  Outputs that a pass has padded to
    fixed shapes are cut to their counts, so that they can be compared with what there was before it; the graph of one
    image of a batch runs on each of them.

    Raises:
        GraphForgeError: ONNX Runtime does not load or run it.
    """
    from graphforge.ir.images import IMAGE_BY_IMAGE
    from graphforge.passes.bound_dynamic_shapes import PADDED_OUTPUTS
    from graphforge.passes.compute_where_kernels_are import runnable
    from graphforge.runners.custom_ops import runner_before_lowering

    padding, images = model.meta.get(PADDED_OUTPUTS, ()), model.meta.get(IMAGE_BY_IMAGE)
    with runner_before_lowering(runnable(model), optimize=False) as of_graph:
        runner: Runner = UnpaddedRunner(of_graph, padding) if padding else of_graph
        return (ImageByImageRunner(runner, images) if images else runner).run(feeds)
