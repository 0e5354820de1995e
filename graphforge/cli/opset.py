"""`graphforge opset`: what each opset can do for a model, and what each runtime lacks of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graphforge.cli.console import print_json, progress, stderr, stdout
from graphforge.cli.request import ModelRequest, capture_option, json_option, model_options
from graphforge.targets.semantic import NMS_FORMS, OUTPUT_FORMS

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from graphforge.opsets.answer import OpsetAnswer
    from graphforge.prepare import Prepared

__all__ = ["command"]


@click.command("opset")
@model_options
@click.option(
    "--target",
    metavar="NAME",
    help="Only this runtime: onnxruntime, tensorrt, magicmind, openvino, coreml, ncnn.  [default: all]",
)
@click.option(
    "--outputs", type=click.Choice(OUTPUT_FORMS), help="Of data-dependent results, as in `graphforge compile`."
)
@click.option("--nms", type=click.Choice(NMS_FORMS), help="How NMS is written, as in `graphforge compile`.")
@click.option("--prove", is_flag=True, help="Deliver every legal opset and run each beside the reference.")
@click.option("--html", metavar="FILE", help="Write the answer as one self-contained page, too.")
@capture_option
@json_option
def command(
    request: ModelRequest,
    target: str | None,
    outputs: str | None,
    nms: str | None,
    prove: bool,
    html: str | None,
    capture: str,
    as_json: bool,
) -> int:
    """Say which opsets MODEL (or an ONNX file) can be delivered in, and what runtimes take of it.

    For every opset from 11 to the newest: legal as it stands, legal after legalisation (which operators, how), or
    impossible (which nodes, from which source lines, the lowest opset that would do, what to change).  For every
    runtime: the operators it lacks, and where that is known from.  Ends with exit code 1 when --prove finds a legal
    opset whose file is invalid or gives other results.

    \b
    Examples:
      graphforge opset model.onnx
      graphforge opset torchvision:swin_t --input 'x:1x3x224x224' --target openvino
      graphforge opset net.py:build --input 'x:1x3x64x64' --prove --html opsets.html
    """
    from graphforge.opsets.answer import answer_for_file
    from graphforge.verbs import answer_for_prepared

    with progress(quiet=as_json) as begin:
        begin("load")
        loaded = request.load()
        if loaded.onnx_path is not None:  # nothing runs unless it is to be proved, so no inputs are needed
            answer, model = answer_for_file(Path(loaded.onnx_path), target=target, outputs=outputs, nms=nms)
            prepared = request.prepare(loaded) if prove else None
        else:
            prepared = request.prepare(loaded)
            begin("capture")
            answer, model = answer_for_prepared(prepared, target=target, capture=capture, outputs=outputs, nms=nms)
        if prove and model is not None and prepared is not None:
            answer = _proved(answer, model, prepared, request.seed, begin)
    page = None
    if html is not None:
        from graphforge.opsets.render import write_page

        page = write_page(answer, Path(html), model=request.model)
    if as_json:
        print_json(answer.to_dict())
    else:
        from graphforge.opsets.render import print_answer

        print_answer(stdout(), answer)
    if page is not None:
        stderr().print(f"written: {page}", soft_wrap=True, markup=False)
    return int(answer.is_disproved)


def _proved(
    answer: OpsetAnswer, model: ir.Model, prepared: Prepared, seed: int, begin: Callable[[str], None]
) -> OpsetAnswer:
    from graphforge.opsets.matrix import State
    from graphforge.opsets.prove import prove_opsets
    from graphforge.prepare import example_feeds, reference_runner

    assert answer.matrix is not None
    legal = [cell.opset for cell in answer.matrix.cells if cell.state is not State.IMPOSSIBLE]
    proofs = prove_opsets(
        model,
        legal,
        reference_runner(prepared),
        prepared.shapes,
        example_feeds(prepared),
        seed=seed,
        progress=begin,
    )
    return replace(answer, proofs=tuple(proofs))
