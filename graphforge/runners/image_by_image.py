"""Run the graph of one image on a batch, image by image, and answer as the model does: with a result of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.runners.arrays import Array
from graphforge.runners.runner import Runner

if TYPE_CHECKING:
    from graphforge.ir.images import Images

__all__ = ["ImageByImageRunner"]


class ImageByImageRunner:
    """A runner of one image that takes a batch.

    Args:
        runner: runs the graph of one image.
        images: which inputs hold images.
    """

    def __init__(self, runner: Runner, images: Images) -> None:
        self.runner = runner
        self.images = images
        self.name = runner.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of every image, ``output_0_boxes`` and so on, then those with a row of each."""
        found: dict[str, Array] = {}
        rows: dict[str, list[Array]] = {}
        for image in range(len(feeds[self.images.inputs[0]])):
            one = {n: data[image : image + 1] if n in self.images.inputs else data for n, data in feeds.items()}
            for name, data in self.runner.run(one).items():
                result = self.images.results[name]
                if result.each:
                    found[result.each.replace("*", str(image), 1)] = data
                else:
                    rows.setdefault(result.name, []).append(data)
        return {**found, **{name: np.concatenate(parts) for name, parts in rows.items()}}

    def close(self) -> None:
        """Close the runner of one image."""
        self.runner.close()
