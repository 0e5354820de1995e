"""`graphforge run`: a bundle on a picture or on arrays; detections are printed and drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import json_option
from graphforge.errors import GraphForgeError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from rich.console import Console

    from graphforge.cli.detections import Detections
    from graphforge.frontend.spec import ShapeSpec, TensorSpec
    from graphforge.targets.target import Runner

__all__ = ["command"]

_DRAWN_AS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_FOR_PICTURES = ("float32", "float16", "float64", "uint8")


@click.command("run")
@click.argument("bundle", metavar="BUNDLE")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="[NAME=]FILE",
    help="A picture, .npy, or .npz (inputs by name); repeat for more inputs, or for more pictures of one input.",
)
@click.option("--draw", metavar="FILE", help="Write the picture with detections drawn; several stand side by side.")
@click.option("--score", type=float, default=0.3, show_default=True, help="Show detections that score more.")
@click.option("--labels", metavar="FILE", help="Names of the labels, one a line, beginning with label 0.")
@click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="What the brightest pixel becomes: 1, or 255 for models that take 0..255.",
)
@click.option("--mean", metavar="M[,M,M]", help="Subtracted from pixels after --scale, one number or one a channel.")
@click.option("--std", metavar="S[,S,S]", help="Pixels are divided by it after --mean.")
@json_option
def command(
    bundle: str,
    inputs: tuple[str, ...],
    draw: str | None,
    score: float,
    labels: str | None,
    scale: float,
    mean: str | None,
    std: str | None,
    as_json: bool,
) -> None:
    """Run BUNDLE, a folder made by `graphforge compile`, and show what it says.

    \b
    Examples:
      graphforge run out/detector --input street.jpg --draw seen.png --labels coco.txt
      graphforge run out/detector --input a.jpg --input b.jpg --score 0.5 --json
      graphforge run out/resnet50 --input cat.jpg --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
      graphforge run out/bert --input ids=ids.npy --input mask=mask.npy

    A picture becomes RGB (grey where the input has one channel) between 0 and 1, resized to the input's size.
    Outputs named boxes, scores, labels, keypoints, masks, dets, num_dets, also as output_0_boxes, are detections:
    printed and drawn in pixels of the picture as it came.  Other outputs are listed by name, shape and range.
    """
    folder = Path(bundle)
    manifest = _manifest(folder)
    files = tuple(_named_file(text) for text in inputs)
    drawing = None if draw is None else _drawing(draw)
    names = _names(labels)
    pixels = _Pixels(scale, _numbers("--mean", mean, 0.0), _numbers("--std", std, 1.0))
    if 0 in pixels.std:
        raise UsageError(
            "--std holds a zero, and pixels are divided by it", "leave --std out where it shall do nothing"
        )

    with progress(quiet=as_json) as begin:
        begin("load")
        runner = _runner(folder, manifest)
        try:
            begin("run")
            calls = [_call(runner, feed) for feed in _feeds(manifest, files, pixels)]
        finally:
            runner.close()
    shown = [image.above(score) for call in calls for image in call.images]
    if drawing is not None:
        _draw(drawing, shown, calls, names)
    record = {"bundle": bundle, "runner": runner.name, "drawn": draw, "score": score}
    if as_json:
        print_json({**record, "runs": [call.to_dict(score, names) for call in calls]})
    else:
        _print(stdout(), calls, score, names)
        _print_closing(stdout(), runner.name, draw)


# -- what is fed -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pixels:
    """How a picture's 0..1 become what the model takes: times ``scale``, less ``mean``, over ``std``."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def unchanged(self) -> bool:
        return self.scale == 1 and set(self.mean) == {0.0} and set(self.std) == {1.0}


@dataclass(frozen=True, slots=True)
class _Page:
    """One picture of a batch: whence it came (or which input it is), and itself at its own size."""

    title: str
    picture: Image.Image
    input_size: tuple[int, int]  # width and height as the model sees it

    @property
    def factors(self) -> tuple[float, float]:
        return self.picture.width / self.input_size[0], self.picture.height / self.input_size[1]


@dataclass(frozen=True, slots=True)
class _Feed:
    """Arrays for one run, and the pictures among them; a batch may hold more rows than pictures."""

    arrays: Mapping[str, np.ndarray]
    pages: tuple[_Page, ...]
    batch: int


def _feeds(manifest: Mapping[str, Any], files: Sequence[tuple[str, Path]], pixels: _Pixels) -> Iterator[_Feed]:
    """The runs it takes: as many pictures as there are, in batches of the size the bundle takes."""
    from graphforge.cli.inputs import arrays_of_file, is_picture
    from graphforge.verify.profile import spec_of_manifest

    spec = spec_of_manifest(manifest)
    arrays: dict[str, np.ndarray] = {}
    pictures: list[Path] = []
    shown: TensorSpec | None = None
    for name, path in files:
        if is_picture(path):
            tensor = _input_for_pictures(spec, name, path)
            if shown is not None and shown.name != tensor.name:
                raise UsageError(
                    f"pictures go to one input, but {shown.name!r} and {tensor.name!r} are given some",
                    "prepare one of the two yourself and pass it as .npy or .npz",
                )
            shown = tensor
            pictures.append(path)
            continue
        for found, array in arrays_of_file(_full_name(spec, name, path), path, spec.inputs).items():
            if found in arrays:
                raise UsageError(f"two files give data for input {found!r}", "name the input with --input NAME=FILE")
            arrays[found] = array
    sizes = _check_arrays(spec, arrays, shown)
    if shown is None:
        if not pixels.unchanged:
            raise UsageError(
                "--scale, --mean and --std are for pictures, but arrays are given", "arrays are passed on as they are"
            )
        yield _Feed(arrays, tuple(_pages_of_arrays(arrays)), _batch_of(spec, arrays))
        return
    batch = _batch_for(shown, len(pictures), sizes)
    for first in range(0, len(pictures), batch):
        some = pictures[first : first + batch]
        tensor_array, pages = _pictures_as_tensor(some, shown, batch, sizes, pixels)
        yield _Feed({**arrays, shown.name: tensor_array}, pages, batch)


def _full_name(spec: ShapeSpec, name: str, path: Path) -> str:
    if name or path.suffix.lower() != ".npy" or len(spec.inputs) == 1:
        return name
    raise UsageError(f"which input is {str(path)!r}?", f"say --input {spec.inputs[0].name}={path}, or another name")


def _input_for_pictures(spec: ShapeSpec, name: str, path: Path) -> TensorSpec:
    fitting = [tensor for tensor in spec.inputs if _takes_pictures(tensor)]
    listed = "; ".join(f"{tensor.name} {_described(tensor)}" for tensor in spec.inputs)
    if name:
        named = next((tensor for tensor in spec.inputs if tensor.name == name), None)
        if named is None:
            raise UsageError(f"the bundle has no input {name!r}", f"its inputs are: {listed}")
        if not _takes_pictures(named):
            raise UsageError(
                f"input {name!r} takes no picture: it is {_described(named)}",
                "a picture becomes Nx3xHxW or Nx1xHxW; pass other data as .npy or .npz",
            )
        return named
    if not fitting:
        raise UsageError(
            f"no input takes the picture {str(path)!r}",
            f"a picture becomes Nx3xHxW or Nx1xHxW, and the inputs are: {listed}",
        )
    if len(fitting) > 1:
        raise UsageError(f"which input is {str(path)!r}?", f"say --input {fitting[0].name}={path}, or another name")
    return fitting[0]


def _takes_pictures(tensor: TensorSpec) -> bool:
    return (
        len(tensor.shape) == 4 and 1 not in tensor.dims and tensor.shape[1] in (1, 3) and tensor.dtype in _FOR_PICTURES
    )


def _described(tensor: TensorSpec) -> str:
    sizes = []
    for axis, size in enumerate(tensor.shape):
        dim = tensor.dims.get(axis)
        step = "" if dim is None or dim.step == 1 else f"/{dim.step}"
        sizes.append(str(size) if dim is None else f"({dim.low}..{dim.high}{step})")
    return f"{'x'.join(sizes) or 'scalar'} {tensor.dtype}"


def _check_arrays(spec: ShapeSpec, arrays: Mapping[str, np.ndarray], pictured: TensorSpec | None) -> dict[str, int]:
    """See that the arrays fit the bundle's inputs; the sizes they give the dynamic dims."""
    from graphforge.verify.compare import dtype_name

    by_name = {tensor.name: tensor for tensor in spec.inputs}
    given = [*arrays, *([] if pictured is None else [pictured.name])]
    strange = [name for name in arrays if name not in by_name or (pictured is not None and name == pictured.name)]
    missing = [name for name in by_name if name not in given]
    if strange or missing:
        what = f"the bundle has no input {strange[0]!r}" if strange else f"no data for input {', '.join(missing)}"
        if strange and strange[0] in by_name:
            what = f"input {strange[0]!r} is given both pictures and an array"
        raise UsageError(
            what, f"its inputs are: {'; '.join(f'{tensor.name} {_described(tensor)}' for tensor in spec.inputs)}"
        )
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        tensor = by_name[name]
        fits = array.ndim == len(tensor.shape) and dtype_name(array) == tensor.dtype
        for axis, size in enumerate(array.shape if fits else ()):
            dim = tensor.dims.get(axis)
            fits = fits and (size == tensor.shape[axis] if dim is None else size in dim)
            if dim is not None and sizes.setdefault(dim.name, size) != size:
                raise UsageError(
                    f"dynamic dim {dim.name!r} has size {sizes[dim.name]} in one place and {size} in input {name!r}",
                    "dims of one name have one size in a run",
                )
        if not fits:
            came = f"{'x'.join(map(str, array.shape)) or 'scalar'} {dtype_name(array)}"
            raise UsageError(
                f"input {name!r}: expected {_described(tensor)}, got {came}",
                "prepare the data as the model takes it, or compile the bundle for these sizes",
            )
    return sizes


def _batch_for(tensor: TensorSpec, pictures: int, sizes: Mapping[str, int]) -> int:
    """How many rows a run has: what the bundle fixes, or as many as there are pictures, within what it promises."""
    dim = tensor.dims.get(0)
    if dim is None:
        return tensor.shape[0]
    return sizes.get(dim.name) or _nearest(pictures, dim.sizes())


def _nearest(wanted: int, allowed: Sequence[int]) -> int:
    """The promised size nearest to the wanted one, the smaller of two."""
    return min(allowed, key=lambda size: (abs(size - wanted), size))


def _pictures_as_tensor(
    paths: Sequence[Path], tensor: TensorSpec, batch: int, sizes: Mapping[str, int], pixels: _Pixels
) -> tuple[np.ndarray, tuple[_Page, ...]]:
    """The pictures as one batch, the last of them repeated where there are too few."""
    import numpy as np

    from graphforge.cli.inputs import pixels_of, read_picture

    channels = tensor.shape[1]
    pictures = [read_picture(path, grey=channels == 1) for path in paths]
    known = dict(sizes)
    side = {}
    for axis, own in ((2, pictures[0].height), (3, pictures[0].width)):
        dim = tensor.dims.get(axis)
        side[axis] = tensor.shape[axis] if dim is None else known.setdefault(dim.name, _nearest(own, dim.sizes()))
    rows = [_prepared(pixels_of(picture, height=side[2], width=side[3]), tensor, pixels) for picture in pictures]
    array = np.ascontiguousarray(np.stack([*rows, *[rows[-1]] * (batch - len(rows))]))
    pages = tuple(_Page(str(path), picture, (side[3], side[2])) for path, picture in zip(paths, pictures, strict=True))
    return array, pages


def _prepared(pixels: np.ndarray, tensor: TensorSpec, how: _Pixels) -> np.ndarray:
    import numpy as np

    if tensor.dtype == "uint8":
        if not how.unchanged:
            raise UsageError(
                f"input {tensor.name!r} takes bytes, so --scale, --mean and --std do not apply", "leave them out"
            )
        return np.asarray(np.rint(pixels * 255), dtype=np.uint8)
    for option, numbers in (("--mean", how.mean), ("--std", how.std)):
        if len(numbers) not in (1, len(pixels)):
            raise UsageError(
                f"{option} has {len(numbers)} numbers, but the input has {len(pixels)} channels",
                "give one number, or one for each channel",
            )
    mean, std = (np.asarray(numbers, np.float32).reshape(-1, 1, 1) for numbers in (how.mean, how.std))
    return np.asarray((pixels * np.float32(how.scale) - mean) / std, dtype=tensor.dtype)


def _batch_of(spec: ShapeSpec, arrays: Mapping[str, np.ndarray]) -> int:
    first = arrays[spec.inputs[0].name] if spec.inputs else None
    return first.shape[0] if first is not None and first.ndim else 1


def _pages_of_arrays(arrays: Mapping[str, np.ndarray]) -> Iterator[_Page]:
    """Arrays that look like pictures, their range stretched to black and white, to draw on."""
    import numpy as np
    from PIL import Image

    for name, array in arrays.items():
        if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape or array.dtype.kind not in "fu":
            continue
        for number, row in enumerate(array.astype(np.float64)):
            least, most = float(row.min()), float(row.max())
            grey = np.rint((row - least) / max(most - least, 1e-12) * 255).astype(np.uint8).transpose(1, 2, 0)
            picture = Image.fromarray(grey[..., 0] if grey.shape[2] == 1 else grey)
            yield _Page(f"{name}[{number}]", picture, picture.size)
        return


# -- what comes out ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Call:
    """One run: all outputs, and the detections among them, one set for each page, in the page's own pixels."""

    pages: tuple[_Page, ...]
    outputs: Mapping[str, np.ndarray]
    images: tuple[Detections, ...]

    def title(self, number: int) -> str:
        if number >= len(self.pages):
            return f"image {number}"
        page = self.pages[number]
        return f"{page.title} {page.picture.width}x{page.picture.height}"

    def to_dict(self, score: float, names: Sequence[str]) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "outputs": [_facts(name, array) for name, array in self.outputs.items()],
            "images": [
                {
                    "input": self.pages[number].title if number < len(self.pages) else None,
                    "size": list(self.pages[number].picture.size) if number < len(self.pages) else None,
                    "detections": _listed(found.above(score), names),
                }
                for number, found in enumerate(self.images)
            ],
        }


def _call(runner: Runner, feed: _Feed) -> _Call:
    from graphforge.cli.detections import detections_of

    outputs = runner.run(feed.arrays)
    found = detections_of(outputs) or []
    if feed.pages and found and len(found) != feed.batch:
        raise GraphForgeError(
            f"the outputs hold detections of {len(found)} images, but {feed.batch} went in",
            f"the outputs are: {', '.join(f'{name} {array.shape}' for name, array in outputs.items())}",
        )
    if feed.pages:  # detections beyond are those of the rows that filled the batch up
        found = [image.moved(page.factors) for image, page in zip(found, feed.pages, strict=False)]
    return _Call(feed.pages, outputs, tuple(found))


def _facts(name: str, array: np.ndarray) -> dict[str, Any]:
    import numpy as np

    plain = array.dtype.kind in "fiub" and array.size > 0
    return {
        "name": name,
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "min": np.nanmin(array).item() if plain else None,
        "max": np.nanmax(array).item() if plain else None,
        "mean": float(np.mean(array, dtype=np.float64)) if plain else None,
    }


def _listed(found: Detections, names: Sequence[str]) -> list[dict[str, Any]]:
    from graphforge.cli.draw import name_of

    listed = []
    for index in range(len(found)):
        label = int(found.labels[index])
        entry: dict[str, Any] = {
            "label": label,
            "name": name_of(label, names),
            "score": float(found.scores[index]),
            "box": [float(side) for side in found.boxes[index]],
        }
        if found.keypoints is not None:
            entry["keypoints"] = found.keypoints[index].tolist()
        listed.append(entry)
    return listed


def _draw(path: Path, shown: Sequence[Detections], calls: Sequence[_Call], names: Sequence[str]) -> None:
    from graphforge.cli.draw import drawn, side_by_side

    pages = [page for call in calls for page in call.pages]
    outputs = ", ".join(dict.fromkeys(name for call in calls for name in call.outputs))
    if not shown:
        raise GraphForgeError(
            "--draw: the outputs are no detections, so there is nothing to draw",
            f"detections are known by their names, boxes, scores, labels, and these are: {outputs}",
        )
    if len(pages) != len(shown):
        raise GraphForgeError("--draw: there is no picture to draw on", "give --input a picture")
    whole = side_by_side([drawn(page.picture, found, names) for page, found in zip(pages, shown, strict=True)])
    _save(whole, path)


def _save(picture: Image.Image, path: Path) -> None:
    """Written aside, then renamed: a failure leaves what was there before."""
    import os
    import tempfile

    try:
        descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                picture.save(file, format={"jpg": "jpeg"}.get(path.suffix[1:].lower(), path.suffix[1:].lower()))
            os.chmod(aside, 0o644)
            os.replace(aside, path)
        except OSError:
            os.unlink(aside)
            raise
    except OSError as error:
        raise GraphForgeError(
            f"cannot write {str(path)!r}: {error.strerror or error}", "choose another place with --draw"
        ) from None


# -- what is printed ---------------------------------------------------------------------------------------------------


def _print(console: Console, calls: Sequence[_Call], score: float, names: Sequence[str]) -> None:
    from rich.markup import escape

    for call in calls:
        if not call.images:
            console.print(_outputs_table(call))
        for number, found in enumerate(call.images):
            shown = found.above(score)
            count = f"{len(shown)} of {len(found)} detections score more than {score:g}"
            console.print(f"{escape(call.title(number))}: {count}", soft_wrap=True)
            if len(shown):
                console.print(_detections_table(shown, names))


def _print_closing(console: Console, runner: str, draw: str | None) -> None:
    from rich.markup import escape

    drawn_to = "" if draw is None else f", drawn on {draw}"
    console.print(escape(f"run by {runner}{drawn_to}"), soft_wrap=True)


def _detections_table(found: Detections, names: Sequence[str]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("label")
    for column in ("score", "left", "top", "right", "bottom"):
        table.add_column(column, justify="right")
    if found.keypoints is not None:
        table.add_column("keypoints", overflow="fold")
    for entry in _listed(found, names):
        points = " ".join(f"{x:.0f},{y:.0f}" for x, y, *_ in entry.get("keypoints", ()))
        sides = (f"{side:.1f}" for side in entry["box"])
        cells = [escape(entry["name"]), f"{entry['score']:.3f}", *sides]
        table.add_row(*cells, *([points] if found.keypoints is not None else []))
    return table


def _outputs_table(call: _Call) -> Any:
    from rich.markup import escape
    from rich.table import Table

    heading = ", ".join(page.title for page in call.pages)
    table = Table(title=escape(f"outputs for {heading}" if heading else "outputs"), title_justify="left")
    for column in ("output", "dtype", "shape"):
        table.add_column(column)
    for column in ("min", "max", "mean"):
        table.add_column(column, justify="right")
    for name, array in call.outputs.items():
        facts = _facts(name, array)
        numbers = ("" if facts[key] is None else f"{facts[key]:.6g}" for key in ("min", "max", "mean"))
        table.add_row(escape(name), facts["dtype"], "x".join(map(str, array.shape)) or "scalar", *numbers)
    return table


# -- what can be refused at once ---------------------------------------------------------------------------------------


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        if (folder / "manifest.unverified.json").is_file():
            raise GraphForgeError(
                f"bundle {str(folder)!r} failed verification, so it is not run", "compile it again and read why"
            )
        what = "does not exist" if not folder.exists() else "is not a bundle"
        raise GraphForgeError(
            f"{str(folder)!r} {what}", "a bundle is a folder made by graphforge compile, with a manifest.json in it"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["target"]["name"], manifest["inputs"][0:0]
    except (ValueError, KeyError, TypeError) as error:
        raise GraphForgeError(
            f"{str(path)!r} is not the manifest of a bundle: {type(error).__name__}: {error}", "compile the model again"
        ) from None
    found: dict[str, Any] = manifest
    return found


def _runner(folder: Path, manifest: Mapping[str, Any]) -> Runner:
    from graphforge.targets import get_target

    target = get_target(manifest["target"]["name"])
    gone = [name for name in manifest.get("files", ()) if not (folder / name).is_file()]
    if gone:
        raise GraphForgeError(f"bundle {str(folder)!r} lacks its file {gone[0]!r}", "compile the model again")
    runner = target.runner(folder)
    if runner is not None:
        return runner
    problem = getattr(target, "runner_problem", None)
    reason = problem(folder) if callable(problem) else target.available()
    raise GraphForgeError(
        f"a bundle for {target.name} cannot be run on this machine",
        reason or "",
        "compile the model for a target that runs here, for example --target onnx",
    )


def _named_file(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or Path(text).is_file():  # a file may have = in its own name
        name, path = "", text
    if not Path(path).is_file():
        raise UsageError(f"input file {path!r} does not exist", "the path is taken from the current folder")
    return name, Path(path)


def _drawing(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _DRAWN_AS:
        raise UsageError(f"--draw {text!r}: unknown kind of picture", f"end the name with {', '.join(_DRAWN_AS)}")
    if path.is_dir():
        raise GraphForgeError(f"cannot write {text!r}: it is a folder", "choose another place with --draw")
    if not path.parent.is_dir():
        raise GraphForgeError(
            f"cannot write {text!r}: there is no folder {str(path.parent)!r}", "make it, or choose another with --draw"
        )
    return path


def _names(path: str | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GraphForgeError(
            f"labels {path!r} cannot be read: {error}", "expected a text file with one name a line"
        ) from None
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines)


def _numbers(option: str, text: str | None, default: float) -> tuple[float, ...]:
    if text is None:
        return (default,)
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"cannot read {option} {text!r}", f"write it as {option} 0.5 or {option} 0.5,0.5,0.5"
        ) from None
