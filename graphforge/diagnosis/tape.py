"""The reference as a row of named values in the order in which they are computed, with where each comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graphforge.diagnosis.store import Store
from graphforge.ir import Origin
from graphforge.runners.arrays import Array

__all__ = ["Entry", "Key", "ModuleCall", "Tape"]

# A value of the reference: the name of what computes it, and which of its results it is.
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """One call of one module.

    Attributes:
        path: module path, "" for the model itself.
        kind: class name, ``torch.nn.modules.conv.Conv2d``.
        call: number of this call of this module, from 0.
    """

    path: str
    kind: str
    call: int = 0

    def describe(self) -> str:
        """``backbone.conv1 (Conv2d) call 2``."""
        name = self.path or "the model itself"
        short = self.kind.rpartition(".")[2]
        text = f"{name} ({short})" if short else name
        return f"{text} call {self.call + 1}" if self.call else text


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of the reference.

    Attributes:
        key: its name.
        order: place in the order of computation.
        operator: what computes it, ``aten.softmax.int`` or an ONNX operator.
        origin: module, source line and the lines that led there.
        calls: the module calls around it, the model itself first.
        reads: values that its operator reads.
        shape: of the value.
        dtype: of the value.
    """

    key: Key
    order: int
    operator: str
    origin: Origin
    calls: tuple[ModuleCall, ...]
    reads: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str

    @property
    def name(self) -> str:
        """``softmax``, ``split[1]``."""
        return self.key[0] if not self.key[1] else f"{self.key[0]}[{self.key[1]}]"

    @property
    def call(self) -> ModuleCall:
        """The innermost module call."""
        return self.calls[-1] if self.calls else ModuleCall(self.origin.module, self.origin.module_class)

    def describe(self) -> str:
        """``softmax in attn (Attention), net.py:12``."""
        parts = [f"{self.name} in {self.call.describe()}", self.origin.source]
        return ", ".join(part for part in parts if part)


@dataclass(slots=True)
class Tape:
    """All values of the reference for one set of inputs.

    Attributes:
        name: how messages call the reference.
        entries: by key, in the order of computation.
        values: the arrays.
        by_name: name of an operator's node (of a value, for an ONNX file) -> the keys of its results.
        outputs: the reference's outputs by name.
        by_value: name of a value -> its key, for an ONNX file, whose values have names of their own.
        inputs: name of an input -> the name under which operators read it.
        notes: what the user should know.
    """

    name: str
    entries: dict[Key, Entry]
    values: Store[Key]
    by_name: dict[str, list[Key]] = field(default_factory=dict)
    outputs: Mapping[str, Array] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    by_value: Mapping[str, Key] = field(default_factory=dict)

    def close(self) -> None:
        """Let go of the arrays."""
        self.values.close()
