"""Frames of a video, of a folder of pictures, or of one picture; and videos written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.runtime.files import Array, is_picture, read_picture
from graphforge.runtime.warping import opencv

__all__ = ["Frame", "Frames", "VideoWriter", "frames_of", "is_video"]

_VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its name (a file, or a number) and its pixels, [H, W, 3] bytes, red first."""

    name: str
    pixels: Array


@dataclass(frozen=True, slots=True)
class Frames:
    """What ``frames_of`` found: iterate over it for the frames.

    Attributes:
        path: the file or folder.
        count: how many frames there are, as far as the file says.
        rate: frames a second of a video, 0 of pictures.
    """

    path: Path
    count: int
    rate: float = 0.0

    def __iter__(self) -> Iterator[Frame]:
        if self.rate:
            yield from _frames_of_video(self.path, self.count)
        else:
            for path in _pictures_of(self.path):
                yield Frame(str(path), np.asarray(read_picture(path, grey=False)))


def is_video(path: Path) -> bool:
    """Whether the file's name says that it is a video."""
    return path.suffix.lower() in _VIDEOS


def frames_of(path: str | os.PathLike[str]) -> Frames:
    """The frames of a video, of a picture, or of every picture in a folder by name.

    Raises:
        GraphForgeError: there is no such thing, nothing in it, or it cannot be opened.  A video that is cut short
            raises when its last whole frame is done, so that what was made of those before is not lost.
    """
    path = Path(path)
    if not path.exists():
        raise GraphForgeError(f"{str(path)!r} does not exist", "give a picture, a video, or a folder of pictures")
    if path.is_file() and is_video(path):
        capture = _opened(path)
        try:
            library = _library(path)
            count = int(capture.get(library.CAP_PROP_FRAME_COUNT))
            rate = float(capture.get(library.CAP_PROP_FPS))
        finally:
            capture.release()
        return Frames(path, max(count, 0), rate if rate > 0 else 25.0)
    pictures = _pictures_of(path)
    if not pictures:
        raise GraphForgeError(
            f"{str(path)!r} contains no pictures" if path.is_dir() else f"{str(path)!r} is not a picture or a video",
            f"videos end with {', '.join(_VIDEOS)}",
        )
    return Frames(path, len(pictures))


def _pictures_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(one for one in path.iterdir() if one.is_file() and is_picture(one))
    return [path] if is_picture(path) else []


def _library(path: Path) -> ModuleType:
    library = opencv()
    if library is None:
        raise GraphForgeError(
            f"{str(path)!r} is a video, and OpenCV, which reads videos, is not installed",
            "pip install opencv-python-headless",
        )
    return library


def _opened(path: Path) -> Any:
    library = _library(path)
    library.setLogLevel(0) if hasattr(library, "setLogLevel") else None
    capture = library.VideoCapture(str(path))
    if not capture.isOpened():
        raise GraphForgeError(
            f"video {str(path)!r} cannot be opened", "play it in a viewer: is it whole, is it a video?"
        )
    return capture


def _frames_of_video(path: Path, expected: int) -> Iterator[Frame]:
    capture = _opened(path)
    done = 0
    try:
        while True:
            whole, pixels = capture.read()
            if not whole:
                break
            yield Frame(str(done), np.ascontiguousarray(pixels[..., ::-1]))
            done += 1
    finally:
        capture.release()
    # an index counts frames; without one OpenCV works the number out from seconds, which may be a frame or two off
    exact = path.suffix.lower() in (".mp4", ".mov", ".m4v", ".avi")
    if done < expected - (0 if exact else 2 + expected // 50):
        raise GraphForgeError(
            f"video {str(path)!r} is cut short: it says {expected} frames, and {done} can be read",
            f"what was made of the first {done} is kept",
        )


class VideoWriter:
    """Writes frames of one size to an .mp4 or .avi file; used in a ``with`` block.

    Args:
        path: the file.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self.rate = rate
        self._writer: Any = None
        self._size = (0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, pixels: Array) -> None:
        """One frame, [H, W, 3] bytes, red first.

        Raises:
            GraphForgeError: the file cannot be written, or the frame has another size.
        """
        library = _library(self.path)
        size = (pixels.shape[1], pixels.shape[0])
        if self._writer is None:
            code = library.VideoWriter_fourcc(*("MJPG" if self.path.suffix.lower() == ".avi" else "mp4v"))
            self._writer, self._size = library.VideoWriter(str(self.path), code, self.rate, size), size
            if not self._writer.isOpened():
                raise GraphForgeError(f"cannot write video {str(self.path)!r}", "end its name with .mp4 or .avi")
        if size != self._size:
            raise GraphForgeError(f"video {str(self.path)!r} has frames of {self._size}, and one of {size} came")
        self._writer.write(np.ascontiguousarray(pixels[..., ::-1]))
