"""`graphforge reduce`: the smallest part of an ONNX file that still fails."""

from __future__ import annotations

from typing import Any

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, onnx_options

__all__ = ["command", "reduced"]


@click.command("reduce")
@onnx_options
@click.option(
    "--check",
    metavar="COMMAND",
    help="What fails by its exit code; {model} and {inputs} in it are the files.  [default: ONNX Runtime, see below]",
)
@click.option(
    "--fail-code",
    "fail_codes",
    type=int,
    multiple=True,
    help="Exit code that counts; repeat for more.  [default: that of the whole]",
)
@click.option("--fail-text", metavar="REGEX", help="What the check command has to say for its failure to count.")
@click.option(
    "--tolerance", type=click.FloatRange(min=0), help="Share of an output's largest magnitude that may differ."
)
@click.option("--no-reference", is_flag=True, help="Do not compare with ONNX's reference evaluator, which is slow.")
@click.option("--most-runs", type=click.IntRange(min=1), default=500, show_default=True, help="Parts tried at most.")
@click.option("--gen-script", metavar="FILE.py", help="Write a script that does the same with polygraphy.")
@click.option("-o", "--output", metavar="DIR", help="Folder for repro.onnx, inputs.npz and repro.py.")
@json_option
def command(
    request: ModelRequest,
    check: str | None,
    fail_codes: tuple[int, ...],
    fail_text: str | None,
    tolerance: float | None,
    no_reference: bool,
    most_runs: int,
    gen_script: str | None,
    output: str | None,
    as_json: bool,
) -> int:
    """Find the fewest nodes of FILE.onnx that still fail, and write them down with a script that shows it alone.

    Without --check, a failure is what ONNX Runtime does with the whole: it ends the process, refuses the file, gives
    other results optimized than as written, or others than ONNX's reference evaluator.  It runs in a process of its
    own, so a crash is told, not suffered.  Parts are given the values that the whole computes in their place.  Ends
    with exit code 1 when there is a failure.

    \b
    Examples:
      graphforge reduce model.onnx -o repro
      graphforge reduce model.onnx --input-file data.npz --tolerance 0.01
      graphforge reduce model.onnx --check 'trtexec --onnx={model}' --fail-text 'Assertion'
      graphforge reduce model.onnx --gen-script search.py
    """
    return reduced(
        request,
        as_json=as_json,
        check=check,
        fail_codes=fail_codes,
        fail_text=fail_text,
        tolerance=tolerance,
        reference=not no_reference,
        most_runs=most_runs,
        output=output,
        script=gen_script,
    )


def reduced(request: ModelRequest, *, as_json: bool, **options: Any) -> int:
    """Reduce what the request names, print the report; the exit code."""
    from graphforge.verbs.reduce import reduce

    given = request.model_and_inputs()
    with progress(quiet=as_json) as begin:
        report = reduce(given["model"], given["inputs"], seed=request.seed, progress=begin, **options)
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
    return int(report.failure is not None)
