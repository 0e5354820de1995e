"""`graphforge.pipeline`: a detector and a pose estimator on a picture, a folder of pictures or a video."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError, UsageError, argument, worded
from graphforge.runners.recorded import onnx_files_of, read_manifest
from graphforge.runtime.opened import read_opened
from graphforge.shown import Shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from graphforge.journal import Progress
    from graphforge.runners.runner import Runner
    from graphforge.runtime.detections import Detections
    from graphforge.runtime.detector import Detector
    from graphforge.runtime.files import Array
    from graphforge.runtime.pose import PoseDetector
    from graphforge.runtime.video import Frames

__all__ = ["PipelineReport", "Seen", "pipeline"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame: its name, its width and height, and what was found in its pixels."""

    name: str
    size: tuple[int, int]
    found: Detections


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class PipelineReport(Shown, Sequence[Seen]):
    """What was found, frame by frame.

    Attributes:
        source: the picture, folder or video.
        frames: in order.
        detected_on: how many of them the detector looked at.
        seconds: of both models with what belongs to them, reading and drawing left out.
        names: of the labels.
        drawn_on: what the drawing is in.
        failure: why there are no more frames, where that is an error; `error()` raises it.
    """

    source: str
    frames: tuple[Seen, ...]
    detected_on: int
    seconds: float
    names: tuple[str, ...] = ()
    drawn_on: str | None = None
    failure: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: Any) -> Any:
        return self.frames[index]

    def error(self) -> GraphForgeError | None:
        """What ended it early."""
        return GraphForgeError(*self.failure) if self.failure else None

    @property
    def rate(self) -> float:
        """Frames a second."""
        return len(self.frames) / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """``30 frames, 58 poses, 24.1 frames/s``."""
        poses = sum(len(seen.found) for seen in self.frames)
        frames = f"{len(self.frames)} frame{'s' * (len(self.frames) != 1)}"
        rate = f"{self.rate:.1f}" if self.rate >= 1 else f"{self.rate:.2g}"
        return f"{frames}, {poses} pose{'s' * (poses != 1)}, {rate} frames/s"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "source": self.source,
            "drawn": self.drawn_on,
            "frames_per_second": round(self.rate, 3),
            "seconds": round(self.seconds, 4),
            "detected_on": self.detected_on,
            "failure": None if not self.failure else worded(self.failure[0]),
            "frames": [
                {"frame": seen.name, "size": list(seen.size), "poses": seen.found.to_list(self.names)}
                for seen in self.frames
            ],
        }

    def render(self, console: Console) -> None:
        """Print a table, one line for each pose of the first frames, and the sums."""
        from rich.table import Table

        table = Table()
        for column in ("frame", "id", "label", "score", "box", "keypoints", "mean score"):
            table.add_column(column, justify="left" if column in ("frame", "label", "box") else "right")
        for seen in self.frames[:_MOST_LINES]:
            for entry in seen.found.to_list(self.names):
                sure = entry.get("keypoint_scores") or [0.0]
                box = " ".join(f"{side:.1f}" for side in entry["box"])
                cells = [str(entry.get("id", "")), entry["name"], f"{entry['score']:.3f}", box]
                table.add_row(Path(seen.name).name, *cells, str(len(sure)), f"{sum(sure) / len(sure):.3f}")
        console.print(table)
        if len(self.frames) > _MOST_LINES:
            console.print(f"and {len(self.frames) - _MOST_LINES} more frames")
        where = "" if self.drawn_on is None else f", drawn in {self.drawn_on}"
        console.print(f"{self.summary()}, detected on {self.detected_on}{where}", soft_wrap=True, markup=False)


# Of frames in a terminal.
_MOST_LINES = 40


def pipeline(
    detector: str | os.PathLike[str],
    pose: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    draw: str | os.PathLike[str] | None = None,
    score: float = 0.3,
    labels: Sequence[int] = (),
    det_interval: int = 5,
    smooth: bool = True,
    threads: int = 0,
    progress: Progress | None = None,
) -> PipelineReport:
    """Find boxes and the poses in them.

    Args:
        detector: bundle of a detector.
        pose: bundle of a top-down pose estimator.
        source: a picture, a video, or a folder of pictures.
        draw: where to draw: a picture for a picture, a video for a video, a folder for a folder.
        score: boxes that score more are looked at.
        labels: only these labels of the detector are looked at; empty is all.
        det_interval: in a video the detector looks at every such frame, and boxes come from the last poses between.
        smooth: in a video, whether keypoints are smoothed.
        threads: threads of ONNX Runtime for each of the two; 0 takes every CPU.
        progress: called with the name of each step as it begins.

    Returns:
        What was found; a video that is cut short gives its whole frames, and ``report.error()`` says so.

    Raises:
        GraphForgeError: a bundle is not what it should be, or there are no pictures.
    """
    from graphforge.runtime.detector import Detector
    from graphforge.runtime.pipeline import Pipeline
    from graphforge.runtime.pose import PoseDetector
    from graphforge.runtime.tracker import PoseTracker
    from graphforge.runtime.video import frames_of
    from graphforge.verbs.admitting import admitted

    begin = progress or (lambda step: None)
    for name, given, what in (
        ("detector", detector, "the bundle of a detector"),
        ("pose", pose, "the bundle of a pose estimator"),
        ("source", source, "a picture, a video, or a folder of pictures"),
    ):
        if not isinstance(given, str | os.PathLike):
            raise UsageError(
                f"{argument(name)}: expected {what}, got {type(given).__name__}",
                "the order is pipeline(detector, pose, source)",
            )
    frames = frames_of(source)
    destination = None if draw is None else _destination(Path(draw), frames)
    begin("load")
    with ExitStack() as stay:
        for folder in (Path(detector), Path(pose)):
            stay.enter_context(admitted(onnx_files_of(folder, read_opened(folder))))
        models = (
            Detector(detector, threads=threads, runner=_runner(Path(detector), stay)),
            PoseDetector(pose, threads=threads, runner=_runner(Path(pose), stay)),
        )
        if not models[1].crops:
            raise GraphForgeError(
                f"bundle {os.fspath(pose)!r} does not look at boxes: its pre-processing has no crop-box",
                "a model that finds boxes and keypoints at once needs no detector: graphforge run draws both",
            )
        if frames.rate:
            tracker = PoseTracker(*models, det_interval, score=score, labels=labels, smooth=smooth)
            return _done(tracker, lambda: tracker.detections, frames, models, destination, begin)
        both = Pipeline(*models, score, tuple(labels))
        counted = [0]

        def look(pixels: Array) -> Detections:
            counted[0] += 1
            return both(pixels)

        return _done(look, lambda: counted[0], frames, models, destination, begin)


def _runner(folder: Path, stay: ExitStack) -> Runner | None:
    """What runs a bundle that is not for ONNX Runtime."""
    from graphforge.targets import get_target

    if not (folder / "manifest.json").is_file():
        return None  # told by whoever opens it
    manifest = read_manifest(folder)
    if any(name.endswith(".onnx") for name in manifest["files"]):
        return None
    target = get_target(manifest["target"]["name"])
    runner = target.runner(folder)
    if runner is None:
        raise GraphForgeError(
            f"a bundle for {target.name} cannot be run on this machine", target.runs_here(folder) or ""
        )
    stay.callback(runner.close)
    return runner


def _done(
    look: Callable[[Array], Detections],
    detected_on: Callable[[], int],
    frames: Frames,
    models: tuple[Detector, PoseDetector],
    destination: Path | None,
    begin: Progress,
) -> PipelineReport:
    from graphforge.runtime.dataset import Dataset

    of_boxes, of_poses = models[0].dataset, models[1].dataset
    colours = Dataset.of({**of_poses.to_dict(), "class_colours": of_boxes.to_dict().get("class_colours", [])})
    seen: list[Seen] = []
    seconds = 0.0
    failure: tuple[str, ...] = ()
    with ExitStack() as open_files:
        write = None if destination is None else _writer(destination, frames, colours, of_boxes.classes, open_files)
        every = iter(frames)
        while True:
            begin(f"frame {len(seen) + 1} of {frames.count}")
            try:
                frame = next(every, None)
            except GraphForgeError as error:
                if not seen:
                    raise
                failure = error.given
                break
            if frame is None:
                break
            started = time.perf_counter()
            found = look(frame.pixels)
            seconds += time.perf_counter() - started
            seen.append(Seen(frame.name, (frame.pixels.shape[1], frame.pixels.shape[0]), found))
            if write is not None:
                write(seen[-1], frame.pixels)
    drawn_on = None if destination is None else str(destination)
    return PipelineReport(str(frames.path), tuple(seen), detected_on(), seconds, of_boxes.classes, drawn_on, failure)


def _writer(
    destination: Path, frames: Frames, colours: Any, names: Sequence[str], open_files: ExitStack
) -> Callable[[Seen, Array], None]:
    """What draws a frame and writes it: into a video, a folder, or the one picture."""
    from PIL import Image

    from graphforge.runtime.draw import drawn
    from graphforge.runtime.video import VideoWriter

    def picture(seen: Seen, pixels: Array) -> Image.Image:
        return drawn(Image.fromarray(pixels), seen.found, names, colours)

    if frames.rate:
        import numpy as np

        writer = open_files.enter_context(VideoWriter(destination, frames.rate))
        return lambda seen, pixels: writer.write(np.asarray(picture(seen, pixels)))
    if frames.path.is_dir():
        destination.mkdir(exist_ok=True)
        return lambda seen, pixels: picture(seen, pixels).save(destination / Path(seen.name).with_suffix(".png").name)
    return lambda seen, pixels: picture(seen, pixels).save(destination)


def _destination(path: Path, frames: Frames) -> Path:
    """Where to draw, seen to be fit for it.

    Raises:
        UsageError: it is another kind of file than the source.
    """
    from graphforge.runtime.result import drawing_path
    from graphforge.runtime.video import is_video

    if frames.rate:
        if path.suffix.lower() not in (".mp4", ".avi") or not is_video(path):
            raise UsageError(f"{argument('draw')} {str(path)!r}: a video is drawn into a video", "end it with .mp4")
        if not path.parent.is_dir():
            raise GraphForgeError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}", "make it")
        return path
    if not frames.path.is_dir():
        return drawing_path(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{argument('draw')} {str(path)!r}: a folder is drawn into a folder", "choose another place")
    if path.resolve() == frames.path.resolve():
        raise UsageError(f"{argument('draw')} {str(path)!r} is the folder that the pictures are in", "choose another")
    if not path.parent.is_dir():
        raise GraphForgeError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}", "make it")
    return path
