"""What a pass that failed leaves behind: the graph in front of it, and the one command that replays it."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphforge.declaring import files_with_operators
from graphforge.errors import GraphForgeError, InternalError, UserCodeError
from graphforge.user_code import is_ours
from graphforge.user_files import stands_in

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.options import CompileOptions
    from graphforge.spec import ShapeSpec
    from graphforge.transform import Pass

__all__ = ["leave_reproducer"]

# A reproducer is to be sent around; above this the weights are better left where they are.
_MAX_BYTES = 1 << 30


def leave_reproducer(
    error: InternalError | UserCodeError,
    captured_again: Callable[[], ir.Model],
    passes: Sequence[Pass],
    shapes: ShapeSpec,
    options: CompileOptions,
    *,
    folder: Path | None = None,
) -> None:
    """Write the graph as it was before the failing pass and note the command that replays it on the error.

    Nothing is kept for this while all goes well: the model is captured once more and the passes are run up to the one
    that fails.

    Args:
        error: what went wrong in a pass of ours or of the user's; notes are added to it (`add_note`).
        captured_again: makes the graph that the first pass was given.
        passes: all passes, in order.
        shapes: the inputs, whose example sizes the command gives.
        options: those of the compilation, whose files of declarations the command gives.
        folder: where the reproducer goes; None takes a new temporary folder.
    """
    from graphforge.ir import HOME_OPSET
    from graphforge.ir.versions import ir_version_for
    from graphforge.targets.onnx.write import write_onnx
    from graphforge.transform import Pipeline

    theirs = isinstance(error, UserCodeError)
    if theirs and all(is_ours(type(item).__module__) for item in passes):
        return  # a metric, or a function of an operator: no pass shows it
    count = _count_until_failure(captured_again(), passes)
    if count is None and theirs:
        return
    if count is None:
        error.add_note("it did not happen again when the passes were run a second time, so no reproducer was written")
        return
    error.add_note(f"the pass is {passes[count].spec()}")
    failing = type(passes[count])
    own = stands_in(failing)
    if own is None and not is_ours(failing.__module__):
        return  # a class made in a session or brought by a package: no command names the file it is in
    model = captured_again()
    Pipeline(passes[:count]).run(model)
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if weights > _MAX_BYTES:
        error.add_note(f"no reproducer was written: the model's weights take {weights:,} bytes")
        return
    folder = Path(tempfile.mkdtemp(prefix="graphforge-reproducer-")) if folder is None else folder
    path = folder / "model.onnx"
    model.ir_version = ir_version_for(model.graph.opset_imports.get("", HOME_OPSET))
    try:
        write_onnx(model, path)
    except GraphForgeError as failure:
        error.add_note(f"no reproducer could be written: {failure.message}")
        return
    inputs = [f"{tensor.name}:{'x'.join(map(str, tensor.shape))}:{tensor.dtype}" for tensor in shapes.inputs]
    command = ["graphforge", "compile", str(path), *(part for text in inputs for part in ("--input", text))]
    # substitutes have done their work in this graph; its operators are still to be known
    for file in files_with_operators([*options.substitutes, *options.custom_ops]):
        command += ["--custom-op", str(file)]
    command += [] if own is None else ["--pass", own]
    command += ["--pipeline", passes[count].spec(), "--verify-each", "--no-verify"]
    error.add_note(f"the graph in front of {passes[count].name} is in {path}; replay with: {shlex.join(command)}")


def _count_until_failure(model: ir.Model, passes: Sequence[Pass]) -> int | None:
    """How many passes run before one fails; None when all of them run."""
    from graphforge.transform import Pipeline

    for index, item in enumerate(passes):
        try:
            Pipeline([item]).run(model, verify_each=True)
        except (InternalError, UserCodeError):
            return index
        except GraphForgeError:
            return None
    return None
