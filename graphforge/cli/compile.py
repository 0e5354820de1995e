"""`graphforge compile`: a model in, a verified bundle out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.deploying import deploy_config_option, for_sdk, with_deploy_config
from graphforge.cli.looking import looking_options, print_account, print_plan, printing_after
from graphforge.cli.request import ModelRequest, capture_option, form_options, json_option, model_options
from graphforge.cli.tolerances import tolerance_options, tolerances_of
from graphforge.errors import GraphForgeError, UsageError

if TYPE_CHECKING:
    from graphforge.transform import Pass

__all__ = ["command", "options_by_name", "own_passes_and_pipeline"]


@click.command("compile")
@model_options
@deploy_config_option
@click.option(
    "--dump-info",
    is_flag=True,
    help="mmpose:, mmdet: write deploy.json, pipeline.json and detail.json for MMDeploy's SDK beside end2end.onnx; "
    "implies --decode sdk.",
)
@click.option(
    "--target",
    help="Where the model goes: onnx, tensorrt, magicmind, openvino or one of your own; `graphforge targets` lists "
    "them.  [default: onnx]",
)
@click.option("--opset", type=int, help="Opset to deliver; delivered exactly or refused.")
@click.option("--precision", help="Arithmetic, in the target's words; `graphforge targets NAME` lists them.")
@click.option(
    "--option",
    "target_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the target, for example compute_capabilities=SM86,SM89; repeat for more.  `graphforge targets "
    "NAME` lists them.",
)
@click.option(
    "--calibration",
    metavar="DIR|FILE.npz",
    help="Inputs of the model's own kind, normalised: ranges for reduced precision are measured on them.  DIR holds "
    "<input name>/0000.npy; FILE.npz one array an input.  [default: the example and random inputs like it]",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    help="What a reduced precision may cost: of the metric, or per cent of the signal.",
)
@click.option(
    "--metric",
    metavar="FILE.py:function",
    help="How good a model is, larger is better: a function of a function that runs the model on inputs by name.",
)
@form_options
@click.option(
    "--preprocess",
    metavar="FILE.toml",
    help="What becomes of a picture before the model sees it, step by step; kept in the bundle, so that `graphforge "
    "run` does it.  graphforge/runtime/README.md lists the steps.",
)
@click.option(
    "--fold-preprocess",
    is_flag=True,
    help="Put order of colours, scale, mean and deviation into the graph: the input takes bytes.",
)
@capture_option
@click.option("--pass", "passes", multiple=True, metavar="FILE.py:Class", help="A pass of your own; repeat for more.")
@click.option("--pipeline", metavar="'a,b{opt=1},c'", help="Run these passes instead of the default ones.")
@click.option(
    "--check-passes", is_flag=True, help="Run the graph around every pass; stop at one that changes a result."
)
@click.option(
    "--verify-each", is_flag=True, help="Check the graph after every pass (after your own passes it always is)."
)
@looking_options
@click.option("--no-verify", is_flag=True, help="Do not compare with the eager model; the manifest says so.")
@tolerance_options
@click.option("--keep-unverified", is_flag=True, help="Keep a model that failed verification as model.unverified.onnx.")
@click.option(
    "--accept-undecided",
    is_flag=True,
    help="Exit 0 with a model that nothing proves right or wrong; the manifest says so.",
)
@click.option("--allow-nonfinite", is_flag=True, help="NaN and Inf agree with the very same at the same place.")
@click.option("-o", "--output", metavar="DIR", help="Folder of the bundle.  [default: out/NAME]")
@json_option
def command(
    request: ModelRequest,
    deploy_config: str | None,
    dump_info: bool,
    target: str | None,
    opset: int | None,
    precision: str | None,
    target_options: tuple[str, ...],
    calibration: str | None,
    max_drop: float | None,
    metric: str | None,
    outputs: str | None,
    nms: str | None,
    preprocess: str | None,
    fold_preprocess: bool,
    capture: str,
    passes: tuple[str, ...],
    pipeline: str | None,
    check_passes: bool,
    verify_each: bool,
    dry_run: bool,
    explain: bool,
    time_passes: bool,
    print_after: tuple[str, ...],
    no_verify: bool,
    rtol: float | None,
    atol: float | None,
    keep_unverified: bool,
    accept_undecided: bool,
    allow_nonfinite: bool,
    output: str | None,
    as_json: bool,
) -> None:
    """Compile MODEL into a bundle: the artifact and a manifest, verified against the eager model.

    MODEL is one of: package.module:callable, path/file.py:callable (it returns an nn.Module, or (nn.Module, inputs)),
    file.pt2, file.pt (TorchScript), file.onnx, a bundle, torchvision:NAME, timm:NAME, mmpose:CONFIG[,CHECKPOINT],
    mmdet:CONFIG[,CHECKPOINT] (a stock config's name or a file; scripts/openmmlab.sh makes the environment for these).

    \b
    Examples:
      graphforge compile torchvision:resnet50 --input 'x:1x3x224x224' --dynamic 'x:0=1..8'
      graphforge compile net.py:build --kwargs '{"width": 64}' --checkpoint net.pth --input-file photo.jpg
      graphforge compile net.py:build --input 'ids:1x128:int64' --dynamic 'ids:0=1..4,1=16..512/16' --opset 18
      graphforge compile net.py:build --input 'x:1x8' --pass my_pass.py:DropDropout --check-passes
      graphforge compile net.py:build --input 'x:1x8' --explain --time-passes --print-after fold-batch-norm
      graphforge compile net.py:build --input 'x:1x3x64x64' --target tensorrt --option compute_capabilities=SM86,SM89
      graphforge compile detector.py:build --input-file street.jpg --outputs padded --nms portable
      graphforge compile detector.py:build --preprocess letterbox.toml
      graphforge compile mmpose:rtmpose-m_8xb256-420e_coco-256x192,rtmpose-m.pth --dynamic 'input:0=1..8'

    The artifact runs on the given inputs and at other sizes inside every dynamic range.  If an output differs by more
    than rounding explains, the command fails and leaves nothing.  Where the model itself gives other answers as soon
    as its values round otherwise, the verdict is undecided: the bundle is kept, and the command exits with 1 unless
    --accept-undecided is given.
    """
    from graphforge.bundle import destination
    from graphforge.compile import compile_with
    from graphforge.options import CompileOptions, plan
    from graphforge.runtime.sdk import write_sdk_files

    # what can be refused at once is refused before the model is loaded
    request, asked = with_deploy_config(request, deploy_config)
    if dump_info:
        request = for_sdk(request)
    own_passes, chosen_pipeline = own_passes_and_pipeline(passes, pipeline)
    options = CompileOptions(
        target=target or asked.target or "onnx",
        opset=asked.opset if opset is None else opset,
        precision=precision or asked.precision,
        target_options={**asked.options, **options_by_name(target_options)},
        calibration=calibration,
        max_drop=max_drop,
        metric=metric,
        outputs=outputs or asked.outputs,
        nms=nms or asked.nms,
        preprocess=preprocess,
        fold_preprocess=fold_preprocess,
        capture=capture,
        substitutes=request.substitutes,
        custom_ops=request.custom_ops,
        passes=own_passes,
        pipeline=chosen_pipeline,
        check_passes=check_passes,
        verify_each=verify_each,
        instruments=printing_after(print_after, as_json=as_json),
        verify=not no_verify,
        tolerances=tolerances_of(rtol, atol),
        keep_unverified=keep_unverified,
        accept_undecided=accept_undecided,
        allow_nonfinite=allow_nonfinite,
        seed=request.seed,
        output=output,
    )
    planned = plan(options)
    folder = destination(output, request.model)
    if dry_run:
        print_plan(planned, options, request.model, str(folder), as_json=as_json)
        return
    with progress(quiet=as_json) as begin:
        begin("load")
        loaded = request.load()
        loaded.notes += asked.notes
        if asked.source:
            loaded.facts["deploy_config"] = asked.source
        inputs, further = request.examples(loaded, preprocess)
        bundle = compile_with(
            options,
            loaded,
            inputs,
            dynamic_shapes=request.dynamic,
            ranges=request.ranges,
            further_inputs=further,
            progress=begin,
        )
        if dump_info:
            write_sdk_files(bundle.path, bundle.manifest)
    if as_json:
        print_json(bundle.to_dict())
    else:
        print_account(bundle, explain=explain, time_passes=time_passes)
        bundle.render(stdout())


def options_by_name(texts: tuple[str, ...]) -> dict[str, str]:
    """The target's options, as `--option KEY=VALUE` gives them."""
    options: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"cannot read target option {text!r}", "write it as --option KEY=VALUE")
        options[key.strip()] = value.strip()
    return options


def own_passes_and_pipeline(specs: tuple[str, ...], pipeline: str | None) -> tuple[list[Pass], list[Pass] | None]:
    """The user's passes that run after the others, and the whole pipeline where one is given.

    Passes from ``--pass`` are known by name inside ``--pipeline``; one that is named there runs there only.
    """
    if not specs and pipeline is None:
        return [], None
    from graphforge.transform import Pipeline, default_registry, load_pass_from_file

    registry = default_registry().copy()
    classes = [load_pass_from_file(spec) for spec in specs]
    for spec, pass_class in zip(specs, classes, strict=True):
        registry.add_class(pass_class, spec)
    chosen = None if pipeline is None else list(Pipeline.parse(pipeline, registry))
    placed = {item.name for item in chosen or ()}
    own = []
    for pass_class in classes:
        if pass_class.name in placed:
            continue
        try:
            own.append(pass_class())
        except TypeError as error:
            raise GraphForgeError(
                f"pass {pass_class.name!r} cannot be made: {error}", "give every option of a pass a default value"
            ) from None
    return own, chosen
