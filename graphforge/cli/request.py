"""What verbs that take a MODEL have in common: their options, parsed before anything heavy is imported."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graphforge.cli.flags import flag
from graphforge.errors import UsageError
from graphforge.limiting import DEFAULTS, limits
from graphforge.spec import DimRange, ShapeSpec, TensorSpec, ValueRange, parse_dynamic, parse_input, parse_range

if TYPE_CHECKING:
    from graphforge.frontend.load import LoadedModel

__all__ = [
    "ModelRequest",
    "capture_option",
    "custom_op_option",
    "form_options",
    "json_option",
    "limit_option",
    "model_options",
    "onnx_options",
    "optional_model_options",
    "plan_options",
]

R = TypeVar("R")

_INPUT_OPTIONS = (
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME:SHAPE[:DTYPE]",
        help="A tensor input, for example x:1x3x224x224 or ids:1x128:int64; repeat for more.",
    ),
    click.option(
        "--input-file",
        "input_files",
        multiple=True,
        metavar="[NAME=]FILE",
        help="Real data: .npz (inputs by name), .npy, or a picture, as the model's pre-processing makes it (RGB, 0..1, "
        "NCHW, scaled to --input's size where there is none).  Further data for an input that has some, of this or "
        "another promised size, is verified with, too.",
    ),
    click.option(
        "--dynamic",
        multiple=True,
        metavar="NAME:AXIS=LOW..HIGH[/STEP],...",
        help="Sizes promised to work, for example x:0=1..8,2=128..512/32; axis=name:1..8 ties dims of one name.",
    ),
    click.option(
        "--range",
        "ranges",
        multiple=True,
        metavar="NAME=LOW..HIGH",
        help="Values of random data of an input, for example lens=1..T, where T is the name of a --dynamic dim.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of random inputs."),
)
_CUSTOM_OP = click.option(
    "--custom-op",
    "custom_ops",
    multiple=True,
    metavar="FILE.py",
    help="A file that declares operators of your own; repeat for more.",
)
_MODEL_OPTIONS = (
    click.option("--checkpoint", metavar="FILE", help="Weights to load into the module (.pth, .pt, .safetensors)."),
    click.option("--kwargs", metavar="JSON", help="Arguments of the callable that builds the model."),
    click.option(
        "--decode",
        type=click.Choice(["full", "batch", "none", "sdk"]),
        help="mmpose:, mmdet: what the framework's predict returns, the same in padded rows for any batch, what the "
        "head returns, or what MMDeploy's SDK takes.  [default: full]",
    ),
    click.option(
        "--trust-pickle", is_flag=True, help="Allow a checkpoint, .pt2 or .pt file that runs code when it is read."
    ),
    click.option(
        "--substitute",
        "substitutes",
        multiple=True,
        metavar="FILE.py",
        help="A file that declares substitutions for functions of the model; repeat for more.",
    ),
    _CUSTOM_OP,
)
_LIMIT = click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=NUMBER",
    help=f"Raise a limit on what a file or an input may come to; repeat for more.  [{', '.join(DEFAULTS)}]",
)

_FORMS = (
    click.option(
        "--outputs",
        type=click.Choice(["ragged", "padded"]),
        help="Results whose size depends on data: as eager returns them, or padded with a count.  "
        "[default: the target's]",
    ),
    click.option(
        "--nms",
        type=click.Choice(["native", "portable"]),
        help="Suppression as ONNX NonMaxSuppression, or in plain tensor algebra.  [default: the target's]",
    ),
)
_PLAN = (
    click.option(
        "--pass", "passes", multiple=True, metavar="FILE.py:Class", help="A pass of your own; repeat for more."
    ),
    click.option("--pipeline", metavar="'a,b{opt=1},c'", help="Run these passes instead of the default ones."),
    click.option("--target", help="Whose passes come behind the canonical ones.  [default: onnx]"),
    click.option("--opset", type=int, help="Opset to deliver."),
    click.option("--precision", help="Arithmetic, in the target's words; `graphforge targets NAME` lists them."),
    click.option(
        "--option",
        "target_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="An option of the target; repeat for more.",
    ),
    *_FORMS,
)

_REQUEST_OPTIONS = (
    "model",
    "checkpoint",
    "kwargs",
    "decode",
    "trust_pickle",
    "inputs",
    "input_files",
    "dynamic",
    "ranges",
    "seed",
)
_DECLARING_OPTIONS = ("substitutes", "custom_ops")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else; no progress."
)
capture_option = click.option(
    "--capture",
    type=click.Choice(["auto", "export", "export-strict", "fx", "trace"]),
    default="auto",
    show_default=True,
    help="How the program is read from the module; auto tries them in this order and tells why each failed.",
)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A model and its inputs as the command line gives them; nothing is loaded yet.

    Attributes:
        model: the MODEL text.
        checkpoint: weights to load into it.
        kwargs: for the callable that builds it.
        decode: how far the results of a model of OpenMMLab are decoded; None for the default.
        trust_pickle: whether a checkpoint may run code.
        inputs: the tensors named by ``--input``.
        files: ``--input-file`` as (input name or "", path).
        dynamic: input name -> axis -> range.
        ranges: input name -> values that its random data takes.
        seed: of random inputs.
        substitutes, custom_ops: files of declarations, in force while the command runs.
    """

    model: str
    checkpoint: Path | None
    kwargs: Mapping[str, Any]
    decode: str | None
    trust_pickle: bool
    inputs: tuple[TensorSpec, ...]
    files: tuple[tuple[str, Path], ...]
    dynamic: Mapping[str, Mapping[int, DimRange]]
    ranges: Mapping[str, ValueRange]
    seed: int
    substitutes: tuple[str, ...] = ()
    custom_ops: tuple[str, ...] = ()

    def load(self) -> LoadedModel:
        """The model itself."""
        from graphforge.frontend.load import load_model

        return load_model(
            self.model,
            checkpoint=self.checkpoint,
            kwargs=self.kwargs,
            trust_pickle=self.trust_pickle,
            decode=self.decode,
        )

    def examples(self, loaded: LoadedModel | None = None, preprocess: str | None = None) -> tuple[Any, list[Any]]:
        """The example inputs as `graphforge.compile` takes them, and further inputs to verify with.

        Args:
            loaded: the model, which may say what becomes of a picture.
            preprocess: a TOML file of steps, which takes precedence.
        """
        if not self.files:
            return (ShapeSpec(self.inputs) if self.inputs else None), []
        from graphforge.bundle import read_steps, steps_for
        from graphforge.cli.inputs import array_sets_from_files, picture_input

        steps, _ = read_steps(preprocess)
        brought: Mapping[str, Any] = {} if loaded is None else loaded.facts
        own = None if loaded is None else picture_input(loaded)
        if own is not None and own.name in self.dynamic:
            (own,) = ShapeSpec((own,)).with_dynamic({own.name: self.dynamic[own.name]}).inputs
        first, *further = array_sets_from_files(
            self.files,
            self._ranged(),
            seed=self.seed,
            steps_for=lambda tensor: steps_for(tensor, steps, brought),
            own=own,
        )
        return first, further

    def model_and_inputs(self, *, needed: bool = True) -> dict[str, Any]:
        """What every function that takes a model is called with: ``model``, ``inputs``, ``dynamic_shapes``, ``seed``.

        Args:
            needed: whether an ONNX file needs its inputs, too.
        """
        loaded = self.load()
        if loaded.onnx_path is not None and not needed:
            return {"model": loaded, "seed": self.seed}
        inputs, further = self.examples(loaded)
        if further:
            raise UsageError(
                f"two files give data for input {next(iter(further[0]))!r}, and this command takes one set of inputs",
                "name the inputs with --input-file NAME=FILE",
            )
        described = [spec.name for spec in self.inputs]
        unknown = next((name for name in self.ranges if name not in described), None)
        if unknown is not None:
            raise UsageError(
                f"--range names input {unknown!r}, but --input describes: {', '.join(described) or 'none'}",
                f"only random data has a range: describe the input, for example --input {unknown}:1x8:int64",
            )
        if isinstance(inputs, ShapeSpec):
            inputs = ShapeSpec(self._ranged())
        return {"model": loaded, "inputs": inputs, "dynamic_shapes": self.dynamic, "seed": self.seed}

    def _ranged(self) -> tuple[TensorSpec, ...]:
        """The inputs of ``--input`` with their dims and the values that their random data takes."""
        names = [spec.name for spec in self.inputs]
        spec = ShapeSpec(self.inputs)
        if self.ranges:
            spec = spec.with_dynamic({name: axes for name, axes in self.dynamic.items() if name in names})
            spec = spec.with_ranges({name: one for name, one in self.ranges.items() if name in names})
        return spec.inputs


def model_options(function: Callable[..., R]) -> Callable[..., R]:
    """Add MODEL and everything that says how to build and call it; the verb receives one `request`."""

    @functools.wraps(function)
    def with_request(**options: Any) -> R:
        _raise_limits(options.pop("limits"))
        request = _request_from_options(**{name: options.pop(name) for name in _REQUEST_OPTIONS})
        declared = {name: options.pop(name) for name in _DECLARING_OPTIONS}
        _declare(**declared)
        return function(request=replace(request, **declared), **options)

    return _decorated(
        with_request, (click.argument("model"), *_INPUT_OPTIONS[:-1], *_MODEL_OPTIONS, *_INPUT_OPTIONS[-1:], _LIMIT)
    )


def optional_model_options(function: Callable[..., R]) -> Callable[..., R]:
    """Add [MODEL] and all of its options to a verb that can do without; ``request`` is None where there is none."""

    @functools.wraps(function)
    def with_request(**options: Any) -> R:
        _raise_limits(options.pop("limits"))
        given = {name: options.pop(name) for name in _REQUEST_OPTIONS if name in options}
        declared = {name: options.pop(name) for name in _DECLARING_OPTIONS}
        if given["model"] is None:
            for name, value in {**given, **declared}.items():
                if value and name != "seed":
                    raise UsageError(f"{flag(name)} is about MODEL, which is not given", "name it behind BUNDLE")
            return function(request=None, **options)
        request = _request_from_options(**{"dynamic": (), "ranges": (), **given})
        _declare(**declared)
        return function(request=replace(request, **declared), **options)

    without_dynamic = (*_INPUT_OPTIONS[:2], _INPUT_OPTIONS[-1])
    argument = click.argument("model", required=False)
    return _decorated(with_request, (argument, *without_dynamic, *_MODEL_OPTIONS, _LIMIT))


def form_options(function: Callable[..., R]) -> Callable[..., R]:
    """Add the forms that a detector can take: ``outputs`` and ``nms``."""
    return _decorated(function, _FORMS)


def plan_options(function: Callable[..., R]) -> Callable[..., R]:
    """Add what says which passes run: the target, what is asked of it, and passes of the user's own."""
    return _decorated(function, _PLAN)


def custom_op_option(function: Callable[..., R]) -> Callable[..., R]:
    """Add ``--custom-op`` to a verb that runs a bundle; what the files declare is known while the command runs."""

    @functools.wraps(function)
    def declaring(**options: Any) -> R:
        _declare(custom_ops=options.pop("custom_ops"))
        return function(**options)

    return _CUSTOM_OP(declaring)


def limit_option(function: Callable[..., R]) -> Callable[..., R]:
    """Add ``--limit`` to a verb that takes no MODEL."""

    @functools.wraps(function)
    def limited(**options: Any) -> R:
        _raise_limits(options.pop("limits"))
        return function(**options)

    return _LIMIT(limited)


def _raise_limits(texts: tuple[str, ...]) -> None:
    """Put other limits in force until the command ends."""
    numbers: dict[str, int] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        if not equals or not number.strip().isdecimal() or len(number) > 20:
            raise UsageError(f"cannot read limit {text!r}", "write it as --limit nodes=1000000")
        numbers[name.strip().replace("-", "_")] = int(number)
    click.get_current_context().with_resource(limits(**numbers))


def _declare(**files: tuple[str, ...]) -> None:
    """Put files of declarations in force until the command ends."""
    if any(files.values()):
        from graphforge.declaring import declarations

        click.get_current_context().with_resource(declarations(**files))


def onnx_options(function: Callable[..., R]) -> Callable[..., R]:
    """Add FILE.onnx and everything that says what it is run with; the verb receives one `request`."""

    @functools.wraps(function)
    def with_request(**options: Any) -> R:
        _raise_limits(options.pop("limits"))
        given = {name: options.pop(name) for name in _REQUEST_OPTIONS if name in options}
        return function(
            request=_request_from_options(checkpoint=None, kwargs=None, decode=None, trust_pickle=False, **given),
            **options,
        )

    return _decorated(with_request, (click.argument("model", metavar="FILE.onnx"), *_INPUT_OPTIONS, _LIMIT))


def _decorated(function: Callable[..., R], decorators: Sequence[Callable[[Any], Any]]) -> Callable[..., R]:
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def _request_from_options(
    model: str,
    checkpoint: str | None,
    kwargs: str | None,
    decode: str | None,
    trust_pickle: bool,
    inputs: tuple[str, ...],
    input_files: tuple[str, ...],
    dynamic: tuple[str, ...],
    ranges: tuple[str, ...],
    seed: int,
) -> ModelRequest:
    from graphforge.frontend.load import parse_kwargs

    tensors = tuple(parse_input(text) for text in inputs)
    names = [tensor.name for tensor in tensors]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--input gives {twice!r} twice", "every input has one name and one shape")
    dims = parse_dynamic(dynamic)
    if tensors and not input_files:
        ShapeSpec(tensors).with_dynamic(dims)  # an unknown name or a size out of range is told before anything loads
    return ModelRequest(
        model,
        Path(checkpoint) if checkpoint is not None else None,
        parse_kwargs(kwargs),
        decode,
        trust_pickle,
        tensors,
        tuple(_named_file(text) for text in input_files),
        dims,
        parse_range(ranges),
        seed,
    )


def _named_file(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals:
        name, path = "", text
    if not Path(path).is_file():
        raise UsageError(f"input file {path!r} does not exist", "the path is taken from the current folder")
    return name, Path(path)
