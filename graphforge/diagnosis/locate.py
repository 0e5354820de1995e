"""Where a file that failed verification goes wrong, in one line for the message."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from graphforge.diagnosis.artifact import Artifact
from graphforge.diagnosis.by_image import diagnose_by_image, of_one_image
from graphforge.diagnosis.diagnose import MEMORY, diagnose
from graphforge.diagnosis.file_tape import tape_of_file
from graphforge.diagnosis.program import tape_of_program
from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.runners.declared import DeclaredRunner
from graphforge.runners.eager import EagerRunner
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.runners.padding import UnpaddedRunner
from graphforge.runners.runner import Runner
from graphforge.verify.tolerance import Tolerances

if TYPE_CHECKING:
    from graphforge.frontend.captured import Captured

__all__ = ["located"]


def located(
    captured: Captured | None, reference: Runner, artifact: Runner, feeds: Mapping[str, Array], tolerances: Tolerances
) -> tuple[str, list[str]]:
    """The first place that is wrong, "" where nobody can tell, and notes.

    Args:
        captured: the program that was compiled; None for an ONNX file.
        reference: the model.
        artifact: what was compared with it.
        feeds: inputs where they differ.
        tolerances: what counts as equal.
    """
    runner, recipe = (artifact.runner, artifact.recipe) if isinstance(artifact, UnpaddedRunner) else (artifact, ())
    runner = runner.runner if isinstance(runner, DeclaredRunner) else runner
    if not isinstance(runner, OnnxRuntimeRunner):
        return "", []
    try:
        file = Artifact(runner)
        images = None if captured is None else captured.images
        body = None if images is None else of_one_image(file)
        if isinstance(reference, EagerRunner) and captured is not None and images is not None and body is not None:
            tape_of = partial(tape_of_program, captured, reference, memory=MEMORY)
            report = diagnose_by_image(
                images, file, body, feeds, reference.run(feeds), tape_of, tolerances=tolerances, padding=recipe
            )
            return report.describe_first_departure(), []
        if isinstance(reference, EagerRunner) and captured is not None:
            tape = tape_of_program(captured, reference, feeds, memory=MEMORY)
        elif isinstance(reference, OnnxRuntimeRunner):
            tape = tape_of_file(Artifact(reference), feeds, memory=MEMORY)
        else:
            return "", []
        try:
            report = diagnose(tape, file, feeds, tolerances=tolerances, padding=recipe)
        finally:
            tape.close()
    except GraphForgeError as error:
        return "", [f"where they part could not be found out: {error.message}"]
    return report.describe_first_departure(), []
