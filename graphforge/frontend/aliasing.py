"""Views and in-place writes, followed without functionalising the whole program.

The captured program is not functional (``relu_``, ``x[:, 0] = v``).  Every tensor object of a program that writes in
place is a ``Cell``: its current value and, for a view, the cell it looks into.  A write gives the cell a new value,
carries it back into the bases up to the root, and raises the root's version; any other view of that root sees that its
value is of an older version and reads itself again from its base when it is used next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch

from graphforge.errors import LoweringError
from graphforge.frontend.complex.pair import Stored

__all__ = [
    "Cell",
    "NotInvertible",
    "changes_view",
    "functional_twin",
    "is_mutation",
    "shared_argument",
    "written_arguments",
]

# Eager torch hands these operators' operand through in inference; their fake kernels make a copy.
_HANDED_THROUGH = {
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    "aten.feature_alpha_dropout.default",
}


class NotInvertible(Exception):
    """A write goes through a view that we cannot carry back into its base."""


@functools.cache
def is_mutation(target: Any) -> bool:
    """Whether an operator writes to one of its arguments, or changes what an argument looks at."""
    return isinstance(target, torch._ops.OpOverload) and bool(target._schema.is_mutable)


@functools.cache
def changes_view(target: torch._ops.OpOverload) -> bool:
    """Whether an operator changes sizes and strides of its argument instead of elements: ``unsqueeze_``, ``t_``."""
    return torch.Tag.inplace_view in target.tags


@functools.cache
def written_arguments(target: torch._ops.OpOverload) -> tuple[tuple[int | str, ...], bool]:
    """(positions or keywords of the arguments that are written, whether these are ``out=`` arguments)."""
    written: list[int | str] = []
    out = False
    for position, argument in enumerate(target._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written.append(argument.name if argument.kwarg_only else position)
            out = out or argument.is_out
    return tuple(written), out


@functools.cache
def functional_twin(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """The operator that computes the same and writes nothing: ``aten.relu_.default`` -> ``aten.relu.default``."""
    namespace, name, overload = str(target).split(".", 2)
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    if packet is None:
        return None
    same = getattr(packet, overload, None)
    if isinstance(same, torch._ops.OpOverload) and not same._schema.is_mutable:
        return same
    wanted = [(argument.name, str(argument.type)) for argument in target._schema.arguments if not argument.is_out]
    for candidate in packet.overloads():
        other = getattr(packet, candidate)
        have = [(argument.name, str(argument.type)) for argument in other._schema.arguments]
        if have == wanted and not other._schema.is_mutable:
            assert isinstance(other, torch._ops.OpOverload)
            return other
    return None


# -- which tensors share memory ----------------------------------------------------------------------------------------


def _storage(fake: Any) -> int | None:
    if not isinstance(fake, torch.Tensor) or fake.layout != torch.strided:
        return None
    return int(fake.untyped_storage()._cdata)


@functools.cache
def _annotated(target: Any) -> bool:
    """Whether the operator's schema says that a result may look into an argument."""
    if not isinstance(target, torch._ops.OpOverload):
        return False
    infos = [*target._schema.arguments, *target._schema.returns]
    return any(info.alias_info is not None and not info.alias_info.is_write for info in infos)


# Operators whose results may look into arguments though their schema does not say so.
_UNANNOTATED = ("aten.meshgrid.", "aten.broadcast_tensors.", "aten.atleast_")


def shared_argument(node: torch.fx.Node, fake: Any) -> torch.fx.Node | None:
    """The argument of a call that its result (whose fake value is ``fake``) shares memory with, None for new memory.

    In a fresh capture the fake values share storage as the tensors do.  Where they do not, they may have been made one
    by one (a program loaded from a file, constants met in a trace): then the operator itself is asked, on meta tensors.

    Args:
        node: the call.
        fake: fake value of the result, one of them where there are several.
    """
    target = node.target
    if str(target) in _HANDED_THROUGH:
        first = node.args[0]
        training = node.args[2] if len(node.args) > 2 else node.kwargs.get("train", False)
        return first if isinstance(first, torch.fx.Node) and not training else None
    own = _storage(fake)
    if own is not None:
        for argument in node.all_input_nodes:
            if _storage(argument.meta.get("val")) == own:
                return argument
    if isinstance(target, torch._ops.OpOverload) and is_mutation(target):
        first = node.args[0] if node.args else None
        return first if isinstance(first, torch.fx.Node) else None
    if _annotated(target) or str(target).startswith(_UNANNOTATED):
        return _found_by_running(node)
    return None


def _found_by_running(node: torch.fx.Node) -> torch.fx.Node | None:
    """Run the call on meta tensors of the captured sizes and strides and see whose storage its result has.

    Raises:
        NotInvertible: the sizes depend on data, and the call does not work on any.
    """
    assert callable(node.target)
    made: dict[torch.fx.Node, torch.Tensor] = {}

    def plain(value: Any) -> Any:
        if not isinstance(value, torch.SymInt):
            return value
        return value.node.hint if value.node.has_hint() else 3  # any size serves to see what is a view

    def concrete(argument: torch.fx.Node) -> Any:
        fake = argument.meta.get("val")
        if not isinstance(fake, torch.Tensor):
            return plain(fake)
        size = [plain(item) for item in fake.shape]
        stride = [plain(item) for item in fake.stride()]
        made[argument] = torch.empty_strided(size, stride, dtype=fake.dtype, device="meta")
        return made[argument]

    # everything lives on one device, wherever the call moves it
    args = [
        torch.device("meta") if isinstance(argument, torch.device) else argument
        for argument in torch.fx.map_arg(node.args, concrete)
    ]
    kwargs = {key: value for key, value in torch.fx.map_arg(node.kwargs, concrete).items() if key != "device"}
    try:
        result = node.target(*args, **kwargs)
    except RuntimeError as error:  # sizes that depend on data need not fit each other here
        raise NotInvertible(f"whether {node.target} makes a view is not known") from error
    first = result[0] if isinstance(result, list | tuple) else result
    return next((argument for argument, tensor in made.items() if _storage(tensor) == _storage(first)), None)


# -- cells -------------------------------------------------------------------------------------------------------------


class Cell:
    """One tensor object of a program that writes in place.

    Attributes:
        base: the cell this one looks into; None for a tensor with memory of its own.
        fake: the captured program's fake tensor of it, None when unknown.
        version: of a root: how often its memory was written.
        on_write: of a root: called with what is written, to note it or to refuse it.
    """

    __slots__ = ("_again", "_back", "_poison", "_seen", "_value", "base", "fake", "on_write", "root", "version")

    def __init__(self, value: Stored, fake: Any = None, *, on_write: Callable[[], None] | None = None) -> None:
        self._value = value
        self.fake = fake if isinstance(fake, torch.Tensor) else None
        self.base: Cell | None = None
        self._again: Callable[[Stored], Stored] | None = None
        self._back: Callable[[Stored, Stored], Stored] | None = None
        self.root: Cell = self
        self.version = 0
        self._seen = 0
        self.on_write = on_write
        self._poison: str | None = None

    @classmethod
    def view(
        cls,
        value: Stored,
        base: Cell,
        again: Callable[[Stored], Stored],
        back: Callable[[Stored, Stored], Stored],
        fake: Any = None,
    ) -> Cell:
        """A cell that looks into another.

        Args:
            value: its value now.
            base: what it looks into.
            again: the view's value, from a new value of the base.
            back: the base's new value, from its value before and the view's new value; raises ``NotInvertible``.
            fake: the captured program's fake value of the view.
        """
        cell = cls(value, fake)
        cell.base, cell.root = base, base.root
        cell._seen = cell.root.version
        cell._again, cell._back = again, back
        return cell

    def read(self) -> Stored:
        """The value that the program would see now."""
        if self.root._poison is not None:
            raise LoweringError(self.root._poison)
        if self.base is not None and self._again is not None and self._seen != self.root.version:
            self._value = self._again(self.base.read())
            self._seen = self.root.version
        return self._value

    def write(self, value: Stored) -> None:
        """Give the cell, and through it all its bases, a new value.

        Raises:
            NotInvertible: the write cannot be carried back.
        """
        fresh = [(self, value)]
        cell = self
        while cell.base is not None and cell._back is not None:
            value = cell._back(cell.base.read(), value)
            cell = cell.base
            fresh.append((cell, value))
        if self.root.on_write is not None:
            self.root.on_write()
        self.root.version += 1
        for changed, new in fresh:
            changed._value = new
            changed._seen = self.root.version

    def poison(self, reason: str) -> None:
        """Make every later read of this memory an error."""
        self.root._poison = reason


def cells_of(values: Iterable[Any]) -> list[Cell]:
    """The cells among values, nested lists included."""
    found: list[Cell] = []
    for value in values:
        if isinstance(value, Cell):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += cells_of(value)
    return found
