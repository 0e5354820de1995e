"""`--deploy-config`: what a file asks of a compilation, where the command line does not say otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from graphforge.deploying import DeployConfig, read_deploy_config
from graphforge.errors import UsageError
from graphforge.frontend.openmmlab.codebases import codebase_of

if TYPE_CHECKING:
    from graphforge.cli.request import ModelRequest

__all__ = ["deploy_config_option", "for_sdk", "with_deploy_config"]

deploy_config_option = click.option(
    "--deploy-config",
    metavar="FILE|PRESET",
    help="What to ask for, from a TOML file, a .py file of MMDeploy's or a preset (`graphforge presets`); options on "
    "the command line take precedence.",
)


def with_deploy_config(request: ModelRequest, source: str | None) -> tuple[ModelRequest, DeployConfig]:
    """The request with what a deploy config says of the model and its inputs, and the rest of the config.

    Raises:
        GraphForgeError: it cannot be read, or asks for what cannot be had.
    """
    if source is None:
        return request, DeployConfig("")
    codebase = codebase_of(request.model)
    asked = read_deploy_config(source, codebase)
    if asked.overrides and not codebase:
        raise UsageError(
            f"deploy config {source!r} sets values of a model's config, and {request.model!r} has none",
            "they are for models given as mmpose:CONFIG or mmdet:CONFIG",
        )
    from graphforge.runtime.files import is_picture

    # pictures become the size that the file says; arrays and --input have their own
    sized = bool(request.inputs) or not all(is_picture(path) for _, path in request.files)
    return replace(
        request,
        decode=request.decode or asked.decode,
        kwargs={**asked.overrides, **request.kwargs},
        inputs=request.inputs if sized else asked.tensors(),
        # sizes of the file's go with its inputs; those of the command line are put over them axis by axis
        dynamic={
            name: {**({} if sized else asked.dynamic().get(name, {})), **request.dynamic.get(name, {})}
            for name in {**({} if sized else asked.dynamic()), **request.dynamic}
        },
    ), asked


def for_sdk(request: ModelRequest) -> ModelRequest:
    """The request with the decoding that MMDeploy's SDK takes.

    Raises:
        UsageError: the model is not one of OpenMMLab's, or is asked for with another decoding.
    """
    if not codebase_of(request.model):
        raise UsageError(
            f"--dump-info is about models of OpenMMLab, and {request.model!r} is none",
            "they are given as mmpose:CONFIG[,CHECKPOINT] or mmdet:CONFIG[,CHECKPOINT]",
        )
    if request.decode not in (None, "sdk"):
        raise UsageError(
            f"--dump-info is for MMDeploy's SDK, which decodes by itself, and --decode {request.decode} is asked for",
            "leave one of the two out",
        )
    return replace(request, decode="sdk")
