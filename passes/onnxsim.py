"""Run onnxsim on the model, for those who want it; origins are lost where it rewrites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir import Graph, nodes_of, origins_from_metadata, set_origins, write_origin_metadata
from graphforge.transform import Pass, Rewriter

__all__ = ["Onnxsim"]

# protobuf takes no message of 2 GiB or more.
_LARGEST = 2**31 - 2**20


@dataclass(frozen=True)
class Onnxsim(Pass):
    """The optional package onnxsim does the work; without it the pass is an error.

    Attributes:
        check_n: how often onnxsim compares its result with the original on random inputs.
        contrib: allow operators that only ONNX Runtime knows (domain com.microsoft).
    """

    name: ClassVar[str] = "onnxsim"
    check_n: int = 0
    contrib: bool = False

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Send the model through onnxsim and take over what comes back."""
        try:
            import onnxsim
        except ImportError as error:
            raise GraphForgeError(
                "the pass onnxsim needs the package onnxsim, which is not installed",
                "pip install 'graphforge-compiler[onnxsim]', or leave the pass out",
            ) from error
        model = rewriter.model
        size = sum(value.const_value.nbytes for value in graph.initializers.values() if value.const_value is not None)
        if size > _LARGEST:
            raise GraphForgeError(
                f"the pass onnxsim takes models below 2 GB, this one has {size / 2**30:.1f} GB of weights",
                "leave the pass out: the default pipeline has no such limit",
            )
        for node in nodes_of(graph):
            write_origin_metadata(node)
        simplified, ok = onnxsim.simplify(ir.to_proto(model), check_n=self.check_n)
        if not ok:
            raise GraphForgeError(
                "onnxsim's own check says that its result differs from the model", "leave the pass out"
            )
        result: ir.Model = ir.from_proto(simplified)
        foreign = sorted({node.domain for node in nodes_of(result.graph)} - {node.domain for node in nodes_of(graph)})
        if foreign and not self.contrib:
            raise GraphForgeError(
                f"onnxsim brought in operators of {', '.join(foreign)}",
                "allow them with onnxsim{contrib=true}; the file then runs in ONNX Runtime only",
            )
        before = len(graph)
        rewriter.take_over(result.graph)
        for node in nodes_of(graph):
            origins = origins_from_metadata(dict(node.metadata_props))
            if origins:
                set_origins(node, origins)
        rewriter.note(f"onnxsim: {before} nodes became {len(graph)}")
