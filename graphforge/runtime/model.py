"""A bundle's ONNX file in ONNX Runtime, fed with prepared pictures; nothing else of GraphForge is needed to run it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.runners.padding import unpadded
from graphforge.runners.recorded import spec_of_manifest
from graphforge.runners.session import new_session
from graphforge.runtime.dataset import Dataset, dataset_of
from graphforge.runtime.feeds import fits, takes_pictures
from graphforge.runtime.files import Array, read_picture
from graphforge.runtime.opened import opened, read_opened
from graphforge.runtime.placement import Placement
from graphforge.runtime.preprocess import check_steps, completed, prepared, read_preprocess, steps_of
from graphforge.runtime.steps import CropBox, Layout, Step

if TYPE_CHECKING:
    from PIL import Image

    from graphforge.runners.runner import Runner

__all__ = ["Picture", "PictureModel", "Row", "pixels_of_picture"]

Picture: TypeAlias = "str | os.PathLike[str] | Array | Image.Image"


@dataclass(frozen=True, slots=True)
class Row:
    """One prepared picture, or one crop of it.

    Attributes:
        array: as the model takes it, without the batch.
        placement: where the picture lies in it.
        picture: width and height of the picture.
        size: width and height of the input.
    """

    array: Array
    placement: Placement
    picture: tuple[int, int]
    size: tuple[int, int]


class PictureModel:
    """A bundle that takes pictures.

    Args:
        bundle: a ``Bundle`` or its folder, or a folder of MMDeploy's SDK files.
        preprocess: a TOML file or steps, in place of those that the bundle brings.
        threads: threads of ONNX Runtime; 0 takes every CPU.
        colours: the order of channels in arrays that are given as pictures, ``rgb`` or ``bgr`` (OpenCV's).
        runner: what runs it; None is its ONNX file in ONNX Runtime.

    Attributes:
        dataset: names, skeleton and colours.
        steps: what becomes of a picture.
        codec: how keypoints are written in the outputs, where they are MMPose's and not decoded.

    Raises:
        GraphForgeError: it is not such a bundle, or nothing says what becomes of a picture.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        *,
        preprocess: str | os.PathLike[str] | Sequence[Step] | None = None,
        threads: int = 0,
        colours: str = "rgb",
        runner: Runner | None = None,
    ) -> None:
        if colours not in ("rgb", "bgr"):
            raise UsageError(f'{argument("colours")}: expected "rgb" or "bgr", got {colours!r}')
        path, manifest = opened(Path(bundle)) if runner is None else (Path(), read_opened(Path(bundle)))
        if not manifest:
            raise GraphForgeError(
                f"{str(path)!r} is an ONNX file without a manifest", "give the folder that graphforge compile made"
            )
        self.folder = Path(bundle)
        self.dataset: Dataset = dataset_of(manifest)
        self.codec: dict[str, Any] = (manifest.get("openmmlab") or {}).get("codec") or {}
        self.steps = self._steps(manifest, preprocess)
        spec = spec_of_manifest(manifest)
        takers = [one for one in spec.inputs if takes_pictures(one, self.steps)]
        if len(spec.inputs) != 1 or not takers:
            inputs = ", ".join(f"{one.name} {'x'.join(map(str, one.shape))}" for one in spec.inputs)
            raise GraphForgeError(
                f"bundle {str(bundle)!r} does not take one picture and nothing else: its inputs are {inputs}",
                "graphforge.run takes other inputs as well",
            )
        self.tensor = takers[0]
        self.steps = completed(self.steps, self.tensor)
        check_steps(self.steps, self.tensor)
        self._colours = colours
        self._padding = manifest.get("padding", ())
        self._runner = _Session(path, threads) if runner is None else runner

    def _steps(self, manifest: dict[str, Any], given: str | os.PathLike[str] | Sequence[Step] | None) -> Sequence[Step]:
        if isinstance(given, str | os.PathLike):
            return read_preprocess(Path(given))[0]
        if given is not None:
            return tuple(given)
        if not manifest.get("preprocess"):
            raise GraphForgeError(
                f"bundle {str(self.folder)!r} does not say what becomes of a picture",
                f"compile it with a list of steps, or give one here: {argument('preprocess', 'FILE')}",
            )
        return steps_of(manifest["preprocess"])

    @property
    def crops(self) -> bool:
        """Whether it looks at one box of a picture (top-down)."""
        return any(isinstance(step, CropBox) for step in self.steps)

    @property
    def most(self) -> int:
        """How many rows one run takes at most."""
        if len(self.tensor.shape) == 3:
            return 1
        dim = self.tensor.dims.get(0)
        return self.tensor.shape[0] if dim is None else dim.high // dim.step * dim.step

    def row(self, pixels: Array, box: Sequence[float] | None = None) -> Row:
        """A picture as the model takes it.

        Args:
            pixels: [H, W, 3], bytes, red first.
            box: what is to be looked at, where the model looks at a box.

        Raises:
            GraphForgeError: it becomes a size that the bundle does not take.
        """
        array, placement = prepared(self.steps, pixels, box)
        if not fits(array, self.tensor):
            raise GraphForgeError(
                f"a picture of {pixels.shape[1]}x{pixels.shape[0]} becomes {'x'.join(map(str, array.shape))}, "
                "which the bundle does not take",
                "compile it for a wider range of sizes",
            )
        rows_last = any(isinstance(step, Layout) and step.order == "nhwc" for step in self.steps)
        height, width = array.shape[:2] if rows_last else array.shape[1:]
        return Row(array, placement, (pixels.shape[1], pixels.shape[0]), (width, height))

    def run(self, rows: Sequence[Row]) -> dict[str, Array]:
        """The outputs of one run, padding removed; rows that only fill the batch up are among them."""
        batch = self.batch_of(len(rows))
        arrays = [row.array for row in rows]
        if len(self.tensor.shape) == 3:
            fed = arrays[0]
        else:
            fed = np.ascontiguousarray(np.stack([*arrays, *[arrays[-1]] * (batch - len(arrays))]))
        outputs = self._runner.run({self.tensor.name: fed})
        padded = {one[key] for one in self._padding for key in ("output", "count") if one[key]}
        # what runs the model itself has no padding
        return unpadded(outputs, self._padding) if padded and padded <= outputs.keys() else dict(outputs)

    def runs(self, rows: Sequence[Row]) -> Iterator[tuple[Sequence[Row], dict[str, Array]]]:
        """Rows in their order, in as few runs as their sizes and the bundle's batch allow."""
        first = 0
        while first < len(rows):
            last = first + 1
            while last < len(rows) and last - first < self.most and rows[last].array.shape == rows[first].array.shape:
                last += 1
            yield rows[first:last], self.run(rows[first:last])
            first = last

    def pixels(self, picture: Picture) -> Array:
        """A picture as bytes, red first."""
        return pixels_of_picture(picture, self._colours)

    def batch_of(self, wanted: int) -> int:
        """The smallest batch that holds the rows."""
        dim = self.tensor.dims.get(0) if len(self.tensor.shape) == 4 else None
        if dim is None:
            return self.tensor.shape[0] if len(self.tensor.shape) == 4 else 1
        return max(-(-max(wanted, dim.low) // dim.step) * dim.step, wanted)


class _Session:
    """An ONNX file in ONNX Runtime, with nothing around it."""

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int) -> None:
        try:
            self._session: Any = new_session(path, threads=threads, spinning=False)
        except ImportError:
            raise GraphForgeError("onnxruntime is not installed", "pip install onnxruntime") from None
        except GraphForgeError:
            raise
        except Exception as error:  # ONNX Runtime's classes have no public base
            raise GraphForgeError(f"{str(path)!r} cannot be loaded: {' '.join(str(error).split())}") from error
        self._names = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """As every runner."""
        try:
            values = self._session.run(None, dict(feeds))
        except GraphForgeError:  # beyond the limit on seconds
            raise
        except Exception as error:  # as above
            raise GraphForgeError(f"onnxruntime failed to run: {' '.join(str(error).split())}") from error
        return dict(zip(self._names, values, strict=True))

    def close(self) -> None:
        """As every runner."""
        self._session = None


def pixels_of_picture(picture: Picture, colours: str = "rgb") -> Array:
    """A file, a Pillow picture or an array as [H, W, 3] bytes, red first.

    Raises:
        GraphForgeError: it is not a picture.
    """
    if isinstance(picture, str | os.PathLike):
        return np.asarray(read_picture(Path(picture), grey=False))
    if isinstance(picture, np.ndarray):
        array = picture[..., None].repeat(3, axis=2) if picture.ndim == 2 else picture
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
            raise GraphForgeError(
                f"a picture is height x width x 3 bytes, and this is {picture.shape} {picture.dtype}",
                "scale floats to 0..255 and turn them into uint8",
            )
        return array[..., ::-1] if colours == "bgr" else array
    if hasattr(picture, "convert"):
        return np.asarray(picture.convert("RGB"))
    raise GraphForgeError(f"a picture is a file, an array or a Pillow picture, and this is {type(picture).__name__}")
