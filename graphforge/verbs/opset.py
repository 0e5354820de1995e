"""`graphforge.opset`: what each opset can do for a model, and what each runtime lacks of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphforge.declaring import GivenOperator, GivenSubstitution, declarations
from graphforge.prepare import ModelLike, Prepared, example_feeds, load, prepare, reference_runner, to_canonical, to_ir

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.journal import Progress
    from graphforge.opsets.answer import OpsetAnswer

__all__ = ["opset"]


def opset(
    model: ModelLike,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    target: str | None = None,
    outputs: str | None = None,
    nms: str | None = None,
    prove: bool = False,
    capture: str = "auto",
    substitutes: Sequence[GivenSubstitution] = (),
    custom_ops: Sequence[GivenOperator] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> OpsetAnswer:
    """Say which opsets a model (or an ONNX file) can be delivered in, and what runtimes take of it.

    Args:
        model: the model, as ``graphforge.compile`` takes it.
        inputs, kwargs, dynamic_shapes: the example call, as ``graphforge.compile`` takes it; an ONNX file needs none
            unless it is to be proved.
        target: only this runtime: onnxruntime, tensorrt, magicmind, openvino, coreml, ncnn.
        outputs, nms, capture: as ``graphforge.compile`` takes them.
        prove: deliver every legal opset and run each beside the reference.
        substitutes, custom_ops: your own declarations for this call, as ``graphforge.compile`` takes them.
        seed: of random inputs.
        progress: called with the name of each step as it begins.

    Returns:
        The answer; ``is_disproved`` says that a legal opset gave a wrong result.

    Raises:
        UsageError: the runtime is unknown.
        GraphForgeError: the model cannot be read, captured or lowered.
    """
    from graphforge.onnx_io.blame import blaming
    from graphforge.opsets.answer import answer_for_file, answer_for_model
    from graphforge.targets.support import runtimes

    with declarations(substitutes, custom_ops), blaming(model):
        runtimes(target)  # an unknown name is told before any work is done
        loaded = load(model)
        if loaded.onnx_path is not None:  # nothing runs unless it is to be proved, so no inputs are needed
            answer, graph = answer_for_file(loaded.onnx_path, target=target, outputs=outputs, nms=nms)
            if not prove or graph is None:
                return answer
            prepared = prepare(loaded, inputs, kwargs=kwargs, dynamic_shapes=dynamic_shapes, seed=seed)
            return _proved(answer, graph, prepared, seed, progress)
        prepared = prepare(loaded, inputs, kwargs=kwargs, dynamic_shapes=dynamic_shapes, seed=seed)
        if progress is not None:
            progress("capture")
        lowered, _ = to_ir(prepared, capture=capture)
        to_canonical(lowered)
        answer = answer_for_model(lowered, target=target, outputs=outputs, nms=nms)
        return _proved(answer, lowered, prepared, seed, progress) if prove else answer


def _proved(
    answer: OpsetAnswer, model: ir.Model, prepared: Prepared, seed: int, progress: Progress | None
) -> OpsetAnswer:
    from graphforge.opsets.matrix import State
    from graphforge.opsets.prove import prove_opsets
    from graphforge.runners.survey import doubting

    assert answer.matrix is not None
    with doubting("all" if prepared.loaded.onnx_path is not None else ""):
        proofs = prove_opsets(
            model,
            [cell.opset for cell in answer.matrix.cells if cell.state is not State.IMPOSSIBLE],
            reference_runner(prepared),
            prepared.shapes,
            example_feeds(prepared),
            seed=seed,
            progress=progress,
        )
    return replace(answer, proofs=tuple(proofs))
