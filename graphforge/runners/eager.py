"""The PyTorch module itself as a runner: eval mode, no gradients, state put back after every run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.clock import standing_clock
from graphforge.errors import GraphForgeError
from graphforge.hushed import hushed
from graphforge.module_state import ModuleState
from graphforge.runners.arrays import Array, array_from_tensor, as_real, dtype_name, tensor_from_array
from graphforge.runners.way import Step, watching
from graphforge.user_code import user_error

if TYPE_CHECKING:
    import torch

    from graphforge.call import CallInputs

__all__ = ["EagerRunner"]

# A float64 copy of a module takes twice its weights: up to here that costs little.
_MAX_COPY = 1 << 30
_NARROW = ("float32", "float16", "bfloat16")


class EagerRunner:
    """The PyTorch module itself: eval mode, no gradients, inputs cloned, state put back after every run.

    Args:
        module: the module (or ``ExportedProgram.module()``, or a ScriptModule).
        inputs: an example call with its tensors named; feeds take the place of the tensors.
        seed: seeds torch's generator before each run, so that a module that draws random numbers repeats itself.
        name: how messages call it.

    Attributes:
        notes: what the user should know about the runs so far (state that was put back), one line each.
    """

    def __init__(self, module: torch.nn.Module, inputs: CallInputs, *, seed: int = 0, name: str = "eager") -> None:
        self.name = name
        self.module = module
        self.inputs = inputs
        self.seed = seed
        self.notes: list[str] = []
        self.input_names = tuple(inputs.names)
        # Copies of what a run may overwrite in place.  Parameters are only watched: copies would double the memory.
        # The tables of embeddings with a largest norm are the exception: every call cuts the rows that it looks up.
        self._buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
        self._tables = {
            f"{name}.weight".lstrip("."): part.weight.detach().clone()
            for name, part in module.named_modules()
            if getattr(part, "max_norm", None) is not None and hasattr(part, "embedding_dim")
        }
        self._state = ModuleState(module)

    @classmethod
    def of(
        cls, module: torch.nn.Module, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> EagerRunner:
        """A runner for a module and an example call of it; tensors are named after the parameters of its forward."""
        from graphforge.call import input_tree

        return cls(module, input_tree(module, args, dict(kwargs or {})))

    def example(self) -> dict[str, Array]:
        """The example call's tensors by name."""
        return {name: array_from_tensor(as_real(tensor)) for name, tensor in self.inputs.tensors.items()}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name; the feeds and the module are left as they were.

        Raises:
            GraphForgeError: an input is missing, or the module raised.
        """
        with self.undisturbed():
            result = self.call(feeds)
            # Copies: an output may be a view of a buffer, which is put back when this block ends.
            return {name: np.array(_array_of_leaf(leaf)) for name, leaf in _named_leaves(result)}

    def call(self, feeds: Mapping[str, Array]) -> Any:
        """The module's own return value; to be used inside ``undisturbed``.

        Raises:
            GraphForgeError: an input is missing, or the module raised.
        """
        missing = [name for name in self.input_names if name not in feeds]
        if missing:
            raise GraphForgeError(
                f"{self.name}: no data for input {', '.join(missing)}",
                f"the data given is for: {', '.join(feeds) or 'nothing'}",
            )
        import torch

        args, kwargs = self.inputs.map_leaves(
            lambda name, leaf: (
                _like(leaf, tensor_from_array(feeds[name])).to(leaf.device) if isinstance(leaf, torch.Tensor) else leaf
            )
        )
        from torch.fx import GraphModule

        try:
            with (
                _without_compilers(),
                hushed()
                if isinstance(self.module, GraphModule)
                else nullcontext(),  # which prints its code as it fails
                standing_clock(),
            ):
                return self.module(*args, **kwargs)
        except Exception as error:  # whatever the user's forward raises
            raise user_error(
                f"{self.name}: the model itself fails on these inputs",
                error,
                "inputs: " + ", ".join(f"{name} {tuple(feeds[name].shape)}" for name in self.input_names),
            ) from error

    def way(self, feeds: Mapping[str, Array]) -> list[Step]:
        """What the module calls on these feeds, in order.

        Raises:
            GraphForgeError: an input is missing, or the module raised.
        """
        with self.undisturbed(), watching() as steps:
            self.call(feeds)
        return steps

    def in_float64(self) -> EagerRunner:
        """The same module in float64, for telling rounding from error; feeds are widened as they come.

        Raises:
            GraphForgeError: the module cannot be copied, or is too large to be copied (see ``_MAX_COPY``).
        """
        import copy

        size = sum(parameter.nbytes for parameter in self.module.parameters())
        if size > _MAX_COPY:
            raise GraphForgeError(f"{self.name}: {size / 1e9:.1f} GB of weights are too many for a copy in float64")
        try:
            wide = copy.deepcopy(self.module).double()
        except Exception as error:  # whatever the user's module raises when it is copied
            raise GraphForgeError(f"{self.name}: the model cannot be copied: {error}") from error
        return _WideRunner(wide, self.inputs, seed=self.seed, name=f"{self.name} in float64")

    def close(self) -> None:
        """Nothing to let go of."""

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Eval mode, no gradients and a fixed random state inside; modes, buffers and random state are put back.

        Raises:
            GraphForgeError: the module overwrote one of its own parameters.
        """
        import torch

        training = [module for module in self.module.modules() if module.training]
        versions = {name: parameter._version for name, parameter in self.module.named_parameters()}
        for module in training:
            module.training = False
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(self.seed)
                yield
        finally:
            for module in training:
                module.training = True
            self._restore_buffers()
            self._put_back_state()
        for name, parameter in self.module.named_parameters():
            if name in self._tables:
                with torch.no_grad():
                    parameter.copy_(self._tables[name])
            elif name in versions and parameter._version != versions[name]:
                raise GraphForgeError(
                    f"{self.name}: the model overwrites its own parameter {name} while it runs",
                    "such a model gives another answer at every call, so nothing can be compared with it",
                )

    def _put_back_state(self) -> None:
        """Every run is a first one; what was a value before, and not just the place for a cache, is told."""
        for name, before in self._state.put_back().items():
            if isinstance(before, int | float) or (hasattr(before, "numel") and before.numel()):
                note = f"attribute {name} is changed by a run; it was put back"
                if note not in self.notes:
                    self.notes.append(note)

    def _restore_buffers(self) -> None:
        import torch

        current = dict(self.module.named_buffers())
        for name, saved in self._buffers.items():
            buffer = current.get(name)
            if buffer is not None and _same_elements(buffer, saved):
                continue
            owner, _, attribute = name.rpartition(".")
            note = f"buffer {name} is changed by a run; it was put back"
            if note not in self.notes:
                self.notes.append(note)
            if buffer is not None and buffer.shape == saved.shape and buffer.dtype == saved.dtype:
                with torch.no_grad():
                    buffer.copy_(saved)
            else:
                setattr(self.module.get_submodule(owner), attribute, saved.clone())


def _without_compilers() -> AbstractContextManager[Any]:
    """Parts under ``torch.compile`` run as they are written: to compile them at every size takes a minute."""
    import torch

    # whoever calls torch.compile has imported it
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _like(example: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """What is given for a complex input, as the model takes it."""
    import torch

    return torch.view_as_complex(given) if example.is_complex() and not given.is_complex() else given


class _WideRunner(EagerRunner):
    """An eager runner whose feeds of fewer digits become float64 on the way in."""

    def call(self, feeds: Mapping[str, Array]) -> Any:
        return super().call({n: a.astype(np.float64) if dtype_name(a) in _NARROW else a for n, a in feeds.items()})


def _same_elements(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.is_floating_point():
        return bool(torch.equal(one, other) or torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)))
    return torch.equal(one, other)


def _named_leaves(result: Any) -> list[tuple[str, Any]]:
    """What a module returned, flattened: tensors and numbers under the names that lowering gives the outputs."""
    from torch.utils import _pytree

    from graphforge.call import LEFT_OUT, output_names

    leaves, spec = _pytree.tree_flatten(result)
    named = zip(output_names(spec), leaves, strict=True)
    return [(name, leaf) for name, leaf in named if leaf is not None and not isinstance(leaf, LEFT_OUT)]


def _array_of_leaf(leaf: Any) -> Array:
    import torch

    if isinstance(leaf, torch.Tensor):
        return array_from_tensor(as_real(leaf))
    if isinstance(leaf, bool):
        return np.asarray(leaf)
    if isinstance(leaf, int):
        return np.asarray(leaf, np.int64)
    if isinstance(leaf, float):
        return np.asarray(leaf, np.float64)  # Python's floats are
    if isinstance(leaf, complex):
        return np.asarray([leaf.real, leaf.imag], np.float32)
    raise GraphForgeError(f"the model returns a {type(leaf).__name__}, which cannot be compared")
