"""`graphforge lint`: an ONNX file or a bundle against what is known of a target's rules."""

from __future__ import annotations

import click

from graphforge.cli.console import print_json, stdout
from graphforge.cli.request import json_option, limit_option

__all__ = ["command"]


@click.command("lint")
@click.argument("path", metavar="MODEL.onnx|BUNDLE")
@click.option("--target", required=True, metavar="NAME", help="Whose rules: magicmind or tensorrt.")
@limit_option
@json_option
def command(path: str, target: str, as_json: bool) -> int:
    """Check an ONNX file, or the whole folder that `graphforge compile` wrote, against the rules of a target.

    Every finding has its rule, how bad it is, what the rule rests on (documented, observed in working samples,
    inferred, or asked of the installed TensorRT's parser), the node with the place it came from, and the way out.
    Nothing is run or built.  Ends with exit code 1 when a finding is an error.

    \b
    Examples:
      graphforge lint model.onnx --target magicmind
      graphforge lint out/resnet50 --target magicmind --json
      graphforge lint model.onnx --target tensorrt
    """
    from graphforge.verbs.lint import lint

    report = lint(path, target)
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
    return int(report.has_errors)
