"""What users write for `dynamic_shapes`, read into ranges: ours, those of torch.export, and the command line's text."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphforge.errors import UsageError, argument
from graphforge.spec import DimRange, ShapeSpec, parse_dynamic

__all__ = ["read_dynamic_shapes"]

Ranges = dict[str, dict[int, DimRange]]

# Without a largest size: twice the example's, and no fewer than this.
_LEAST_HIGH = 8


def read_dynamic_shapes(given: Any, spec: ShapeSpec, parameters: Sequence[str]) -> tuple[Ranges, list[str]]:
    """Input name -> axis -> range, and what the user should know of how it was read.

    Args:
        given: a dict by input name (nested as the inputs are), a tuple or list in the order of the parameters, or text
            such as ``"x:0=1..8,2=128..512/32"``; of each input a dict by axis, or a tuple or list with an entry for
            each axis.  An entry is ``(low, high)``, ``(low, high, step)``, text such as ``"1..8"``, a ``DimRange``, a
            ``torch.export.Dim``, or None for a fixed size.
        spec: the tensor inputs, by name, with their example sizes.
        parameters: names of the parameters, in order.

    Raises:
        UsageError: it is something else, or names what is not there.
    """
    if given is None:
        return {}, []
    if isinstance(given, str):
        return dict(parse_dynamic([given])), []
    if isinstance(given, list | tuple) and given and all(isinstance(item, str) for item in given):
        return dict(parse_dynamic(given)), []
    if isinstance(given, list | tuple):
        if len(given) > len(parameters):
            raise UsageError(
                f"{argument('dynamic_shapes')} has {len(given)} entries, but the model takes {len(parameters)} inputs",
                f"the inputs are: {', '.join(parameters) or 'none'}",
            )
        given = dict(zip(parameters, given, strict=False))
    if not isinstance(given, Mapping):
        raise UsageError(
            f"{argument('dynamic_shapes')}: expected a dict by input name, got {type(given).__name__} {given!r}",
            f"for example {argument('dynamic_shapes', f'{_first(spec)}:0=1..8')}, or a dict: "
            f"{{{_first(spec)!r}: {{0: (1, 8)}}}}",
        )
    reader = _Reader(spec)
    ranges: Ranges = {}
    for name, value in given.items():
        for leaf, axes in reader.leaves(str(name), value):
            ranges.setdefault(leaf, {}).update(axes)
    return ranges, reader.notes


def _first(spec: ShapeSpec) -> str:
    return spec.inputs[0].name if spec.inputs else "x"


class _Reader:
    """Reads one ``dynamic_shapes``; notes what it had to decide."""

    def __init__(self, spec: ShapeSpec) -> None:
        self.shapes = {tensor.name: tensor.shape for tensor in spec.inputs}
        self.notes: list[str] = []

    def leaves(self, name: str, value: Any) -> Iterator[tuple[str, dict[int, DimRange]]]:
        """Every tensor at or below a name, with its ranges."""
        if value is None:
            return
        if name in self.shapes:
            yield name, dict(self._axes(name, value))
        elif not any(known.startswith(f"{name}.") for known in self.shapes):
            yield name, {}  # `with_dynamic` tells which there are
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from self.leaves(f"{name}.{key}", item)
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                yield from self.leaves(f"{name}.{index}", item)
        else:
            below = ", ".join(known for known in self.shapes if known.startswith(f"{name}."))
            raise UsageError(
                f"dynamic_shapes[{name!r}]: expected a dict or tuple, as the input is one, got {value!r}",
                f"its tensors are: {below}",
            )

    def _axes(self, name: str, value: Any) -> Iterator[tuple[int, DimRange]]:
        shape = self.shapes[name]
        advice = f"a range goes by its axis: {{{name!r}: {{0: (1, 8)}}}}"
        if isinstance(value, Mapping):
            items = list(value.items())
        elif isinstance(value, list | tuple):
            if len(value) != len(shape) or (value and all(map(_is_whole, value))):
                raise UsageError(
                    f"dynamic_shapes[{name!r}]: expected a dict by axis, or one entry for each of its {len(shape)} "
                    f"axes, got {value!r}",
                    advice,
                )
            items = list(enumerate(value))
        else:
            raise UsageError(f"dynamic_shapes[{name!r}]: expected a dict by axis, got {value!r}", advice)
        for axis, item in items:
            if not _is_whole(axis):
                raise UsageError(f"dynamic_shapes[{name!r}]: axis {axis!r} is not a whole number", advice)
            dim = self._range(name, axis, item)
            if dim is not None:
                yield axis, dim

    def _range(self, name: str, axis: int, given: Any) -> DimRange | None:
        shape = self.shapes[name]
        where = f"dynamic_shapes[{name!r}][{axis}]"
        inside = -len(shape) <= axis < len(shape)
        size = shape[axis] if inside else 0
        label = f"{name}_{axis % len(shape) if inside else abs(axis)}".replace(".", "_")
        if given is None or isinstance(given, DimRange):
            return given
        if _is_whole(given):
            if given != size:
                raise UsageError(
                    f"{where} is the fixed size {given}, but the example has {size} there",
                    f"for a dynamic dim give its smallest and largest size: ({min(given, size)}, {max(given, size)})",
                )
            return None
        if isinstance(given, str):
            return parse_dynamic([f"x:0={given}" if ":" in given else f"x:0={label}:{given}"])["x"][0]
        if isinstance(given, tuple | list) and 2 <= len(given) <= 3 and all(map(_is_whole, given)):
            return DimRange(label, *given)
        if _is_derived_dim(given):
            raise UsageError(
                f"{where}: {given.__name__} is computed from another dim, which cannot be promised",
                "give it a range of its own, or a DimRange with a step: DimRange('width', 32, 512, step=32)",
            )
        if _is_dim(given):
            return self._bounded(given.__name__, given.min, given.max, size, where)
        if _is_hint(given):
            if given.type.name == "STATIC":
                return None
            return self._bounded(label, given.min, given.max, size, where)
        raise UsageError(
            f"{where}: expected (low, high), (low, high, step), a DimRange or a torch.export.Dim, got {given!r}",
            "for example (1, 8)",
        )

    def _bounded(self, label: str, low: Any, high: Any, size: int, where: str) -> DimRange:
        """A dim of torch's, which may be open at its ends, with the sizes that are tried and promised."""
        low = max(1, low) if _is_whole(low) else 1
        if not _is_whole(high) or high >= sys.maxsize - 1:  # torch's way to say infinite
            high = max(2 * size, _LEAST_HIGH)
            note = f"{where} has no largest size, so {low}..{high} is what is tried and promised"
            if note not in self.notes:
                self.notes.append(note)
        return DimRange(label, low, high)


def _is_whole(item: object) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


def _classes() -> Any:
    """torch.export's module of dims; who gives one has imported it."""
    return sys.modules.get("torch.export.dynamic_shapes")


def _is_dim(item: object) -> bool:
    module = _classes()
    return module is not None and isinstance(item, module.Dim)


def _is_derived_dim(item: object) -> bool:
    derived = getattr(_classes(), "_DerivedDim", None)
    return derived is not None and isinstance(item, derived)


def _is_hint(item: object) -> bool:
    hint = getattr(_classes(), "_DimHint", None)
    return hint is not None and isinstance(item, hint)
