"""A graph of one image that stands for a batch of them, until the pass `loop-over-images` has made it one.

Python code that goes through a batch image by image and returns a list is captured for one image alone
(`frontend/image_by_image.py`).  Whoever runs such a graph gives it one image at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["IMAGE_BY_IMAGE", "Images", "OfImages"]

# Where a model keeps its ``Images`` while its graph is that of one image.
IMAGE_BY_IMAGE = "graphforge.image_by_image"


@dataclass(frozen=True, slots=True)
class OfImages:
    """A result of one image, and what becomes of it for all of them.

    Attributes:
        name: of the output that holds it for all.
        each: name of that of each image in the model's own result, ``*`` in place of its number; "" where the model
            returns one tensor of all, whose row the image has.
    """

    name: str
    each: str


@dataclass(frozen=True, slots=True)
class Images:
    """What a graph of one image stands for.

    Attributes:
        dim: name of the dim that counts the images.
        sizes: how many there may be.
        inputs: names of the inputs that hold one image in each row; the others are the same for all.
        results: the outputs by the name that one image's has.
    """

    dim: str
    sizes: range
    inputs: tuple[str, ...]
    results: Mapping[str, OfImages]
