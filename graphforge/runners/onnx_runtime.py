"""An ONNX model in ONNX Runtime on the CPU, run through polygraphy."""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.last_step import entering
from graphforge.runners.arrays import Array
from graphforge.runners.session import loadable, new_session

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from graphforge.runners.elsewhere import Elsewhere

__all__ = ["OnnxRuntimeRunner", "usable_cpus"]


def usable_cpus() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class OnnxRuntimeRunner:
    """An ONNX model in ONNX Runtime on the CPU; one session for the runner's whole life, made on first use.

    Args:
        model: a file, serialised bytes, an ``onnx.ModelProto`` or an ``onnx_ir.Model``.
        threads: threads within an operator; None takes every usable CPU.
        optimize: let the runtime fuse and fold (as in production); False runs the graph as written.
        spinning: idle workers spin, which measures faster and starves whatever else runs here; off for checks.
        configure: called with the ``SessionOptions``, for custom operator libraries and the like.
        entries: of the session's configuration, by their keys.
        here: its runs are measured, so they are made in this process, where those of files from elsewhere are not.
        name: how messages call it.
    """

    def __init__(
        self,
        model: Path | str | bytes | onnx.ModelProto | ir.Model,
        *,
        threads: int | None = None,
        optimize: bool = True,
        spinning: bool = False,
        configure: Callable[[Any], None] | None = None,
        entries: Mapping[str, str] | None = None,
        here: bool = False,
        name: str = "onnxruntime",
    ) -> None:
        self.name = name
        self.model = model
        self.threads = usable_cpus() if threads is None else threads
        self.optimize = optimize
        self.spinning = spinning
        self.configure = configure
        self.entries = entries
        self.here = here
        self._session: Any = None
        self._elsewhere: Elsewhere | None = None
        self._tried: set[tuple[Any, ...]] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def path(self) -> Path | None:
        """The model's file, None when it came from memory."""
        return Path(self.model) if isinstance(self.model, str | Path) else None

    @property
    def session(self) -> Any:
        """The ``onnxruntime.InferenceSession`` in this process."""
        if self._session is None:
            self._doubted()
            self._session = self._new_session()
        return self._session

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs in the file's order."""
        elsewhere = self._doubted()
        if elsewhere is not None:
            return elsewhere.input_names
        return tuple(value.name for value in self.session.get_inputs())

    @property
    def output_names(self) -> tuple[str, ...]:
        """Outputs in the file's order."""
        elsewhere = self._doubted()
        if elsewhere is not None:
            return elsewhere.output_names
        return tuple(value.name for value in self.session.get_outputs())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name; feeds that the file has no input for are left out.

        Raises:
            GraphForgeError: an input is missing, or the runtime failed; names the node and where it came from.
        """
        mine = self._mine(feeds)
        found = self._run_elsewhere(mine)
        if found is not None:
            return found
        try:
            if self._has_types_without_numpy:
                return self._run_by_values(mine)
            outputs = self._run_by_polygraphy(mine)
        except GraphForgeError:  # beyond the limit on seconds
            raise
        except Exception as error:  # ONNX Runtime raises a family of pybind classes with no public common base
            raise self._failure("failed to run", error) from error
        strange = [name for name, value in outputs.items() if not isinstance(value, np.ndarray)]
        if strange:
            raise GraphForgeError(f"{self.name}: output {strange[0]} is not a tensor; only tensors can be compared")
        return outputs

    def run_each(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """As ``run``, one output after the other, so that they are held once only; what is not a tensor is left out.

        Raises:
            GraphForgeError: as ``run``.
        """
        mine = self._mine(feeds)
        elsewhere = self._run_elsewhere(mine, tensors=True)
        if elsewhere is not None:
            while elsewhere:
                name = next(iter(elsewhere))
                yield name, elsewhere.pop(name)
            return
        if any("string" in value.type for value in [*self.session.get_inputs(), *self.session.get_outputs()]):
            yield from self.run(feeds).items()
            return
        try:
            found = self._values(mine)
        except GraphForgeError:  # as in run
            raise
        except Exception as error:  # as in run
            raise self._failure("failed to run", error) from error
        found.reverse()
        for name in self.output_names:
            value = found.pop()
            if value.is_tensor():
                yield name, _array_of_ort_value(value)

    def close(self) -> None:
        """End the session and remove temporary files."""
        self._session = None
        if self._elsewhere is not None:
            self._elsewhere.close()
            self._elsewhere = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> OnnxRuntimeRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mine(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What the file has an input for.

        Raises:
            GraphForgeError: an input is missing.
        """
        missing = [name for name in self.input_names if name not in feeds]
        if missing:
            raise GraphForgeError(
                f"{self.name}: no data for input {', '.join(missing)}",
                f"the data given is for: {', '.join(feeds) or 'nothing'}",
            )
        entering("onnxruntime", f"run {'a model' if self.path is None else self.path.name}", self.path)
        return {name: feeds[name] for name in self.input_names}

    def _doubted(self) -> Elsewhere | None:
        """The other process's session of what is from elsewhere; operators of the user's own are not there."""
        from graphforge.runners.elsewhere import Elsewhere
        from graphforge.runners.survey import is_doubted

        if self._elsewhere is None and self._session is None and self.configure is None and is_doubted("all"):
            model = self.path
            if model is not None:
                self._refuse_without_file()
            given = loadable(self.model, self._scratch) if model is None else model
            try:
                self._elsewhere = Elsewhere(
                    Path(given) if isinstance(given, str) else given,
                    threads=self.threads,
                    optimize=self.optimize,
                    entries=self.entries,
                    name=self.name,
                )
            except OSError:  # no further process can be started
                return None
        return self._elsewhere

    def _run_elsewhere(self, feeds: Mapping[str, Array], *, tensors: bool = False) -> dict[str, Array] | None:
        """What comes of a run in the other process; None where it is to run here, if need be after a trial there."""
        elsewhere = self._doubted()
        if elsewhere is None:
            return None
        if not self.here:
            return elsewhere.run(feeds, tensors=tensors)
        sizes = tuple(np.shape(one) for one in feeds.values())
        if sizes not in self._tried:
            elsewhere.run(feeds, back=False)
            self._tried.add(sizes)
        return None

    def _run_by_polygraphy(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        if "torch" not in sys.modules:  # which polygraphy imports to see whether an input is one of its tensors
            return dict(zip(self.output_names, self.session.run(None, feeds), strict=True))
        from polygraphy.backend.onnxrt import OnnxrtRunner

        # Activation only borrows the session; left active, the runner would warn about itself when it is collected.
        with OnnxrtRunner(self.session, name=self.name) as runner:
            return dict(runner.infer(feeds, check_inputs=False))

    def _new_session(self) -> Any:
        self._refuse_without_file()
        try:
            return new_session(
                self.model,
                threads=self.threads,
                optimize=self.optimize,
                spinning=self.spinning,
                configure=self._configured,
                scratch=self._scratch,
            )
        except GraphForgeError:  # as in run
            raise
        except Exception as error:  # as above: no public base class
            raise self._failure("cannot load the model", error) from error

    def _configured(self, options: Any) -> None:
        for key, value in (self.entries or {}).items():
            options.add_session_config_entry(key, value)
        if self.configure is not None:
            self.configure(options)

    def _refuse_without_file(self) -> None:
        if self.path is not None and not self.path.is_file():
            raise GraphForgeError(f"{self.name}: no file {self.path}")

    def _scratch(self) -> Path:
        if self._folder is not None:
            return Path(self._folder.name)
        self._folder = tempfile.TemporaryDirectory(prefix="graphforge-")
        return Path(self._folder.name)

    @functools.cached_property
    def _has_types_without_numpy(self) -> bool:
        values = [*self.session.get_inputs(), *self.session.get_outputs()]
        return any(value.type in _WITHOUT_NUMPY for value in values)

    def _run_by_values(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = self._values(feeds)
        return {name: _array_of_ort_value(value) for name, value in zip(self.output_names, found, strict=True)}

    def _values(self, feeds: Mapping[str, Array]) -> list[Any]:
        """numpy has no bfloat16 and float8: bytes go in and out through OrtValues, as ml_dtypes arrays on our side."""
        import onnxruntime

        values = {}
        for info in self.session.get_inputs():
            array = np.asarray(feeds[info.name], order="C")  # ascontiguousarray would give a scalar a dim
            if info.type in _WITHOUT_NUMPY:
                raw = array.view(np.uint16 if array.itemsize == 2 else np.uint8)
                element = _WITHOUT_NUMPY[info.type][0]
                value = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, element)
            else:
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            values[info.name] = value
        return list(self.session.run_with_ort_values(None, values))

    def _failure(self, what: str, error: Exception) -> GraphForgeError:
        text = " ".join(str(error).split())
        text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
        text = re.sub(r"/onnxruntime_src/\S+:\d+ .*?\[with [^\]]*\] ", "", text)  # where in its own code it was
        unknown = re.search(r"([\w.]+):(\w+)\(-?\d+\) is not a registered function/op", text)
        theirs = unknown is not None and unknown[1] not in ("ai.onnx", "ai.onnx.ml", "com.microsoft")
        return GraphForgeError(
            f"{self.name} {what}: {text}",
            *self._places(text),
            f"declare {unknown[1]}::{unknown[2]} while it runs: with graphforge.custom_ops(...)"
            if unknown is not None and theirs
            else "",
        )

    def _places(self, message: str) -> Iterator[str]:
        """Where the nodes that a runtime message names come from, one line each."""
        from graphforge.ir.origin import origins_from_metadata

        named = re.findall(r"(?:Name:\s*'|Node:|Node \()([^'()\s]+)", message)
        if not named:
            return
        with suppress(OSError, ValueError):
            for node in self._nodes():
                if node.name in named:
                    properties = {entry.key: entry.value for entry in node.metadata_props}
                    origins = origins_from_metadata(properties)
                    came_from = "; ".join(origin.describe() for origin in origins[:3])
                    if came_from:
                        yield f"{node.op_type} node {node.name} came from {came_from}"

    def _nodes(self) -> Sequence[Any]:
        import onnx
        import onnx_ir as ir

        if isinstance(self.model, str | Path):
            return list(onnx.load(str(self.model), load_external_data=False).graph.node)
        if isinstance(self.model, bytes):
            return list(onnx.load_from_string(self.model).graph.node)
        if isinstance(self.model, onnx.ModelProto):
            return list(self.model.graph.node)
        return [ir.to_proto(node) for node in self.model.graph]


# Type name of the runtime -> (ONNX element type, dtype name in ml_dtypes).
_WITHOUT_NUMPY: Mapping[str, tuple[int, str]] = {
    "tensor(bfloat16)": (16, "bfloat16"),
    "tensor(float8e4m3fn)": (17, "float8_e4m3fn"),
    "tensor(float8e4m3fnuz)": (18, "float8_e4m3fnuz"),
    "tensor(float8e5m2)": (19, "float8_e5m2"),
    "tensor(float8e5m2fnuz)": (20, "float8_e5m2fnuz"),
}


def _array_of_ort_value(value: Any) -> Array:
    if value.data_type() not in _WITHOUT_NUMPY:
        array: Array = value.numpy()
        return array
    import ctypes

    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, _WITHOUT_NUMPY[value.data_type()][1]))
    shape = tuple(value.shape())
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, dtype=dtype).reshape(shape).copy()
