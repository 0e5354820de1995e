"""The samples of a data set: pictures (or boxes of pictures) with what is known of them, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphforge.doors import text_of
from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.runtime.files import is_picture
from graphforge.schema import ANYTHING, COUNT, NUMBER, SIZE, TEXT, Record, Several, one_of, read_json

__all__ = ["CocoFile", "Sample", "read_coco", "read_labels", "read_pairs"]

_BOX = one_of(
    "[left, top, width, height]",
    lambda data: isinstance(data, list) and len(data) == 4 and not any(NUMBER.fault(one, "") for one in data),
)
_COCO = Record(
    {
        "images": Several(Record({"id": COUNT, "file_name": TEXT}, {"width": SIZE, "height": SIZE})),
        "annotations": Several(
            Record(
                {"id": COUNT, "image_id": COUNT, "category_id": COUNT},
                {"bbox": _BOX, "area": NUMBER, "keypoints": Several(NUMBER), "segmentation": ANYTHING},
            )
        ),
        "categories": Several(Record({"id": COUNT}, {"name": TEXT})),
    }
)
_FOUND = Several(Record({"image_id": COUNT, "category_id": COUNT, "bbox": _BOX, "score": NUMBER}))


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture, or one box of a picture.

    Attributes:
        name: of its own.
        path: the picture.
        truth: what is known: annotations, a label, or the file of the picture that it should be.
        box: what is to be looked at, xyxy.
        image: the number of its picture in an annotation file.
    """

    name: str
    path: Path
    truth: Any = None
    box: tuple[float, float, float, float] | None = None
    image: int = 0


@dataclass(frozen=True, slots=True)
class CocoFile:
    """An annotation file of COCO's form.

    Attributes:
        path: the file.
        data: its content.
        images: by id, in the file's order.
        categories: names by id, in the order of ids.
    """

    path: Path
    data: Mapping[str, Any]
    images: Mapping[int, Mapping[str, Any]]
    categories: Mapping[int, str]
    by_image: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def pictures(self, folder: Path, limit: int | None) -> list[Sample]:
        """A sample for each picture."""
        chosen = list(self.images.items())[:limit]
        return [
            Sample(image["file_name"], _found(folder, image["file_name"]), self.by_image.get(number, []), image=number)
            for number, image in chosen
        ]

    def boxes(self, folder: Path, limit: int | None) -> list[Sample]:
        """A sample for each annotated box with keypoints, as mmpose takes them; a crowd is none."""
        samples = []
        for picture in self.pictures(folder, limit):
            image = self.images[picture.image]
            for one in picture.truth:
                if one.get("iscrowd") or "bbox" not in one or not max(one.get("keypoints") or [0]):
                    continue
                box = _inside(one["bbox"], image)
                if box is not None:
                    samples.append(Sample(f"{picture.name}#{one['id']}", picture.path, one, box, picture.image))
        return samples

    def boxes_of_detector(self, path: Path, folder: Path, limit: int | None) -> list[Sample]:
        """A sample for each box that a detector found, in the file of results that COCO's tools write.

        Raises:
            GraphForgeError: it is not such a file, or is of other pictures or categories.
        """
        data = read_json(path, "a file of a detector's boxes", "a list of image_id, category_id, bbox and score")
        bad = _FOUND.fault(data, "boxes")
        if bad:
            raise GraphForgeError(f"{str(path)!r} is not a file of a detector's boxes: {bad}")
        pictures = {picture.image: picture for picture in self.pictures(folder, limit)}
        samples = []
        for at, one in enumerate(data):
            if one["image_id"] not in self.images or one["category_id"] not in self.categories:
                key = "image_id" if one["image_id"] not in self.images else "category_id"
                raise GraphForgeError(f"{str(path)!r}: boxes[{at}].{key} is {one[key]}, which {str(self.path)!r} lacks")
            picture = pictures.get(one["image_id"])
            box = None if picture is None else _inside(one["bbox"], self.images[one["image_id"]])
            if picture is not None and box is not None:
                samples.append(Sample(f"{picture.name}#box{at}", picture.path, one, box, picture.image))
        return samples


def _inside(box: Sequence[float], image: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """A box of left, top, width and height as xyxy, cut at the picture's edges; None where nothing is left."""
    left, top, wide, high = box
    most = (image.get("width", np.inf) - 1, image.get("height", np.inf) - 1)
    x1, x2 = (float(min(max(side, 0.0), most[0])) for side in (left, left + wide))
    y1, y2 = (float(min(max(side, 0.0), most[1])) for side in (top, top + high))
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def read_coco(path: Path) -> CocoFile:
    """An annotation file, checked: every annotation is of a picture and of a category that are there.

    Raises:
        GraphForgeError: it is not such a file.
    """
    data = read_json(path, "an annotation file of COCO's form", "it has images, annotations and categories")
    bad = _COCO.fault(data, "")
    if bad:
        raise GraphForgeError(f"{str(path)!r} is not an annotation file of COCO's form: {bad}")
    images = {image["id"]: image for image in data["images"]}
    categories = {
        one["id"]: one.get("name", str(one["id"])) for one in sorted(data["categories"], key=lambda c: c["id"])
    }
    if len(images) < len(data["images"]):
        raise GraphForgeError(f"{str(path)!r}: two images have one id")
    if len({one["id"] for one in data["annotations"]}) < len(data["annotations"]):
        raise GraphForgeError(f"{str(path)!r}: two annotations have one id")
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for at, one in enumerate(data["annotations"]):
        if one["image_id"] not in images:
            raise GraphForgeError(f"{str(path)!r}: annotations[{at}] is of image {one['image_id']}, which is not there")
        if one["category_id"] not in categories:
            known = ", ".join(f"{number} ({name})" for number, name in list(categories.items())[:8])
            raise GraphForgeError(
                f"{str(path)!r}: annotations[{at}] is of category {one['category_id']}, which is not there",
                f"the categories are: {known}",
            )
        by_image.setdefault(one["image_id"], []).append(one)
    return CocoFile(path, data, images, categories, by_image)


# More are no number of a class, and Python reads no more than 4,300.
_DIGITS = 18


def read_labels(path: Path, folder: Path, limit: int | None) -> list[Sample]:
    """Pictures with a label each: lines of a file name and a number, ImageNet's form.

    Raises:
        GraphForgeError: a line is not such a line, or a picture is missing.
    """
    try:
        lines = text_of(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GraphForgeError(f"{str(path)!r} cannot be read: {error}") from None
    samples = []
    for number, line in enumerate(lines, start=1):
        name, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not name or not label.isdecimal() or len(label) > _DIGITS:
            raise GraphForgeError(
                f"{str(path)!r}, line {number}: expected a file and its label, got {line[:60]!r}",
                "write it as: cat_0001.jpg 281",
            )
        samples.append(Sample(name.strip(), _found(folder, name.strip()), int(label)))
        if len(samples) == limit:
            break
    return _some(samples, path)


def read_pairs(path: Path, folder: Path, limit: int | None) -> list[Sample]:
    """Pictures with the picture that each should become, or its labels, in another folder under the same name.

    Raises:
        GraphForgeError: a picture has no partner.
    """
    partners = {one.stem: one for one in sorted(path.iterdir()) if is_picture(one)}
    samples = []
    for one in sorted(folder.iterdir()):
        if not is_picture(one):
            continue
        if one.stem not in partners:
            raise GraphForgeError(f"{str(path)!r} contains no picture called {one.stem!r}, as {str(folder)!r} does")
        samples.append(Sample(one.name, one, partners[one.stem]))
        if len(samples) == limit:
            break
    return _some(samples, folder)


def _found(folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise GraphForgeError(f"picture {name!r} is not named by a path inside {str(folder)!r}")
    if not path.is_file():
        raise GraphForgeError(
            f"picture {name!r} is not in {str(folder)!r}",
            f"name the folder of the pictures: {argument('images', 'DIR')}",
        )
    return path


def _some(samples: list[Sample], path: Path) -> list[Sample]:
    if not samples:
        raise UsageError(f"{str(path)!r} lists no pictures")
    return samples
