"""The one place where ONNX Runtime sessions are made: on the CPU, quiet, with as many threads as were asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError
from graphforge.last_step import entering, lowered, version_of, within
from graphforge.limiting import allowed, over_time
from graphforge.runners.deadline import Deadline

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    import onnxruntime

__all__ = ["LEVELS", "loadable", "new_session"]

# Less and less of the runtime's optimization, for those that it does not survive.
LEVELS = ("ORT_ENABLE_ALL", "ORT_ENABLE_EXTENDED", "ORT_DISABLE_ALL")

# Seconds that a runtime has to heed that its time is over; then whoever watches this process ends it.
_PATIENCE = 30

# A protobuf message ends at 2 GiB; larger models reach the runtime through a file with external data.
_MAX_IN_MEMORY = (1 << 31) - (1 << 20)


def new_session(
    model: Path | str | bytes | onnx.ModelProto | ir.Model,
    *,
    threads: int = 1,
    optimize: bool = True,
    spinning: bool = False,
    configure: Callable[[Any], None] | None = None,
    scratch: Callable[[], Path] | None = None,
) -> onnxruntime.InferenceSession:
    """A session that runs the model; a load or a run that takes longer than the limit on seconds is ended.

    Args:
        model: a file, serialised bytes, an ``onnx.ModelProto`` or an ``onnx_ir.Model``.
        threads: threads within an operator.
        optimize: let the runtime fuse and fold (as in production); False runs the graph as written.
        spinning: idle workers spin, which measures faster and starves whatever else runs here.
        configure: called with the ``SessionOptions``, for custom operator libraries and the like.
        scratch: gives a folder that lives as long as the session, for a model too large to be handed over in memory.

    Raises:
        Exception: what ONNX Runtime raises: a class of its own for each status code, without a public base class.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # failures reach us as exceptions; warnings on stderr would only be noise
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    level = LEVELS[lowered()[0]] if optimize else LEVELS[-1]
    if level != LEVELS[0]:
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    if configure is not None:
        configure(options)
    source = model if isinstance(model, str | Path | bytes) else loadable(model, scratch)
    given = source if isinstance(source, bytes) else str(source)
    file = None if isinstance(source, bytes) else Path(source)
    entering("onnxruntime", f"load {'a model' if file is None else file.name}", file)
    what = f"{'a model' if file is None else file.name}"

    def cancel() -> None:
        options.set_load_cancellation_flag(True)

    with Deadline(cancel) as deadline, within(allowed("seconds") + _PATIENCE):
        try:
            session = _session_class()(given, sess_options=options, providers=["CPUExecutionProvider"])
        except Exception as error:  # a class of its own for each status code
            if deadline.passed:
                raise over_time(f"onnxruntime {version_of('onnxruntime')}", f"load {what}") from error
            raise
    session.what = what
    return session


@functools.cache
def _session_class() -> Any:
    """ONNX Runtime's session, whose runs come to an end."""
    import onnxruntime

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        what: str

        def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
            return self._in_time(super().run, output_names, input_feed, run_options)

        def run_with_ort_values(self, output_names: Any, input_dict_ort_values: Any, run_options: Any = None) -> Any:
            return self._in_time(super().run_with_ort_values, output_names, input_dict_ort_values, run_options)

        def _in_time(self, run: Callable[..., Any], names: Any, feeds: Any, given: Any) -> Any:
            options = given if given is not None else onnxruntime.RunOptions()

            def end() -> None:
                options.terminate = True  # heeded between nodes, those of a loop's body among them

            with Deadline(end) as deadline, within(allowed("seconds") + _PATIENCE):
                try:
                    return run(names, feeds, options)
                except Exception as error:  # as above
                    if deadline.passed:
                        raise over_time(f"onnxruntime {version_of('onnxruntime')}", f"run {self.what}") from error
                    raise

    return Session


def loadable(model: Any, scratch: Callable[[], Path] | None) -> bytes | str:
    """The model in memory, or as the path of a file in ``scratch`` where it is too large for that."""
    if isinstance(model, bytes):
        return model
    import onnx
    import onnx_ir as ir

    proto = isinstance(model, onnx.ModelProto)
    if proto:
        size = model.ByteSize()
    else:
        size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if size < _MAX_IN_MEMORY // 2:
        ready = model if proto else _of_its_opset(ir.to_proto(model))
        return bytes(ready.SerializeToString())
    if scratch is None:
        raise GraphForgeError(f"a model of {size / 2**30:.1f} GiB is too large to be handed over in memory")
    path = scratch() / "model.onnx"
    if proto:
        ir.save(ir.from_proto(model), path, external_data="model.onnx.data")
    else:
        stated = model.ir_version
        try:
            model.ir_version = _ir_version(stated, model.opset_imports.get(""))
            ir.save(model, path, external_data="model.onnx.data")
        finally:
            model.ir_version = stated
    return str(path)


def _of_its_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    opset = next((item.version for item in proto.opset_import if item.domain == ""), None)
    proto.ir_version = _ir_version(proto.ir_version, opset)
    return proto


def _ir_version(stated: int, opset: int | None) -> int:
    """That of the opset at most: what reads the one reads the other, and a graph in memory may state a newer one."""
    from graphforge.ir.versions import ir_version_for

    return stated if opset is None else min(stated, ir_version_for(opset))
