"""What `graphforge.bisect` leaves: the graph in front of the guilty pass, and the command that bisects it alone."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphforge.errors import GraphForgeError

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.runners.arrays import Array
    from graphforge.transform import Pass

__all__ = ["keeper"]


def keeper(folder: Path | None, feeds: Mapping[str, Array], files: Sequence[str]) -> Callable[[ir.Model, Pass], str]:
    """What keeps the graph in front of the guilty pass; it returns the command that bisects that pass alone."""

    def keep(model: ir.Model, pass_: Pass) -> str:
        import numpy as np

        from graphforge.ir import HOME_OPSET
        from graphforge.ir.versions import ir_version_for
        from graphforge.targets.onnx.write import write_onnx
        from graphforge.user_code import is_ours
        from graphforge.user_files import stands_in

        own = stands_in(type(pass_))
        if own is None and not is_ours(type(pass_).__module__):
            return ""  # a class made in a session or brought by a package: no command names the file it is in
        where = Path(tempfile.mkdtemp(prefix="graphforge-bisect-")) if folder is None else folder
        try:
            where.mkdir(parents=True, exist_ok=True)
            np.savez(where / "inputs.npz", **dict(feeds))  # type: ignore[arg-type]
        except OSError as error:
            raise GraphForgeError(f"cannot write into {where}: {error.strerror or error}") from error
        graph = model.clone()
        graph.ir_version = ir_version_for(graph.graph.opset_imports.get("", HOME_OPSET))
        write_onnx(graph, where / "before.onnx")
        command = ["graphforge", "bisect", str(where / "before.onnx"), "--input-file", str(where / "inputs.npz")]
        command += [part for file in files for part in ("--custom-op", file)]
        command += [] if own is None else ["--pass", own]
        return shlex.join([*command, "--pipeline", pass_.spec()])

    return keep
