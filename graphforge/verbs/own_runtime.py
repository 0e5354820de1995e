"""What runs a bundle in `diff`: the target's own runtime where this machine has it; what is said where it has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphforge.errors import GraphForgeError
from graphforge.runners.runner import Runner

__all__ = ["OwnRuntime", "own_runtime_of"]


@dataclass(frozen=True, slots=True)
class OwnRuntime:
    """What runs an artifact that is more than its ONNX file.

    Attributes:
        runner: runs the artifact itself; None where ONNX Runtime on the ONNX file is all there is.
        graph_runner: runs an ONNX graph in the same runtime, so that values inside can be looked at; None where it
            hands out nothing but outputs.
        notes: what is compared, where that is not the ONNX file in ONNX Runtime as such.
    """

    runner: Runner | None = None
    graph_runner: Callable[[bytes], Runner] | None = None
    notes: tuple[str, ...] = ()


def own_runtime_of(folder: Path, manifest: Mapping[str, Any]) -> OwnRuntime:
    """The runtime of a bundle's target; nothing where that is ONNX Runtime on the ONNX file anyway.

    Args:
        folder: the bundle.
        manifest: what its manifest says.
    """
    from graphforge.targets import get_target

    name = manifest.get("target", {}).get("name", "onnx")
    if name == "onnx" or not folder.is_dir():
        return OwnRuntime()
    try:
        target = get_target(name)
        problem = target.runs_here(folder)
    except GraphForgeError as error:
        problem = error.message
    if problem is not None:
        return OwnRuntime(notes=(f"compared is the ONNX file of this bundle in ONNX Runtime, not {name}: {problem}",))
    runner = target.runner(folder)
    if runner is None:
        return OwnRuntime(notes=(f"compared is the ONNX file of this bundle in ONNX Runtime: {name} has no runner",))
    of_graphs = getattr(target, "graph_runner", None)
    if of_graphs is None:
        return OwnRuntime(
            runner,
            notes=(
                f"the outputs are those of {runner.name}, which hands out nothing else; the values on the way are "
                "those of the ONNX file in ONNX Runtime",
            ),
        )
    return OwnRuntime(
        runner,
        lambda model: of_graphs(folder, model),
        (f"outputs and values are {runner.name}'s own; the values on the way are those of the ONNX file there",),
    )
