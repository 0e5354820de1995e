"""Seconds that ONNX Runtime spends in each node of a file, by its own profile.

The runtime fuses: the time of a node that it made is that of the one whose name it took over, and what it names anew
stays under that name.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from graphforge.runners.arrays import Array

__all__ = ["node_seconds"]

_SUFFIX = "_kernel_time"


def node_seconds(
    path: Path, feeds: Mapping[str, Array], *, runs: int = 5, warmup: int = 2, threads: int | None = None
) -> dict[str, float]:
    """Mean seconds of each node of a run, by the name that the runtime gives it.

    Args:
        path: the file.
        feeds: its inputs.
        runs: profiled runs.
        warmup: runs before.
        threads: threads within an operator; None takes every usable CPU.
    """
    from graphforge.verify.running import runner_of_file

    with tempfile.TemporaryDirectory(prefix="graphforge-profile-") as folder:

        def configure(options: object) -> None:
            options.enable_profiling = True  # type: ignore[attr-defined]
            options.profile_file_prefix = str(Path(folder) / "profile")  # type: ignore[attr-defined]

        with runner_of_file(path, configure=configure, threads=threads) as runner:
            for _ in range(warmup + runs):
                runner.run(feeds)
            events = json.loads(Path(runner.session.end_profiling()).read_text(encoding="utf-8"))
    found: dict[str, list[float]] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            found.setdefault(name.removesuffix(_SUFFIX), []).append(event["dur"] * 1e-6)
    names = sorted(_names(path), key=len, reverse=True)
    seconds: dict[str, float] = {}
    for event_name, times in found.items():
        # what the runtime made of a node is called after it: `conv1/Conv_nchwc`
        name = next((one for one in names if event_name == one or event_name.startswith(f"{one}_")), event_name)
        # a node in the body of a loop runs more than once a run
        mean = sum(times[len(times) * warmup // (warmup + runs) :]) / runs
        seconds[name] = seconds.get(name, 0.0) + mean
    return seconds


def _names(path: Path) -> set[str]:
    import onnx

    return {node.name for node in onnx.load(path, load_external_data=False).graph.node if node.name}
