"""One call of a model: its arguments with a stable name for every tensor, and the names of what it returns."""

from __future__ import annotations

import dataclasses
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree

from graphforge.errors import UsageError
from graphforge.libraries import know_containers, names_in_container
from graphforge.spec import ShapeSpec, TensorSpec

__all__ = [
    "LEFT_OUT",
    "CallInputs",
    "input_tree",
    "key_text",
    "name_of_path",
    "output_names",
    "output_paths",
    "register_dataclasses",
    "script_arguments",
]

# What a model may return beside tensors and numbers, and no artifact can: it is left out.
LEFT_OUT = (str, bytes, torch.dtype, torch.device, torch.Size, type)


class CallInputs:
    """The arguments of one call of the model, with a stable name for every tensor leaf.

    Attributes:
        args, kwargs: as the model is called.
        names: names of the tensor leaves in flattening order (``x``, ``pair.0``, ``options.mask``).
    """

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any], parameters: Sequence[str]) -> None:
        self.args = tuple(args)
        self.kwargs = dict(kwargs)
        self.parameters = tuple(parameters)
        leaves, self.tree = _pytree.tree_flatten_with_path((self.args, self.kwargs))
        self.leaves = [leaf for _, leaf in leaves]
        self.paths = [path for path, _ in leaves]
        self.leaf_names = [self._name(path) for path in self.paths]
        self.names = [n for n, leaf in zip(self.leaf_names, self.leaves, strict=True) if isinstance(leaf, torch.Tensor)]

    def _name(self, path: tuple[Any, ...]) -> str:
        parts = [key_text(key) for key in path]
        if parts[0] == "0":
            position = int(parts[1])
            first = self.parameters[position] if position < len(self.parameters) else f"arg{position}"
            return ".".join([first, *parts[2:]])
        return ".".join(parts[1:])

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Tensor leaves by name."""
        return {
            name: leaf
            for name, leaf in zip(self.leaf_names, self.leaves, strict=True)
            if isinstance(leaf, torch.Tensor)
        }

    def spec(self) -> ShapeSpec:
        """The static shape spec of these tensors; complex ones have a last axis of two, as artifacts take them."""
        plain = {
            name: torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for name, t in self.tensors.items()
        }
        return ShapeSpec(
            tuple(
                TensorSpec(name, tuple(int(size) for size in leaf.shape), str(leaf.dtype).removeprefix("torch."))
                for name, leaf in plain.items()
            )
        )

    def replaced(self, tensors: Mapping[str, Any]) -> CallInputs:
        """The same call with other tensors (by name)."""
        leaves = [
            tensors.get(name, leaf) if isinstance(leaf, torch.Tensor) else leaf
            for name, leaf in zip(self.leaf_names, self.leaves, strict=True)
        ]
        args, kwargs = _pytree.tree_unflatten(leaves, self.tree)
        return CallInputs(args, kwargs, self.parameters)

    def apart(self) -> CallInputs:
        """The same call, with a copy in every place but the first of a tensor that is given several times.

        torch tells inputs apart by identity: it would capture a model that reads one of the places for all of them.
        """
        first: dict[int, str] = {}
        copies = {
            name: leaf.detach().clone().requires_grad_(leaf.requires_grad)
            for name, leaf in self.tensors.items()
            if first.setdefault(id(leaf), name) != name
        }
        return self.replaced(copies) if copies else self

    def map_leaves(self, function: Callable[[str, Any], Any]) -> tuple[Any, Any]:
        """(args, kwargs) with every leaf replaced by ``function(name, leaf)``."""
        leaves = [function(name, leaf) for name, leaf in zip(self.leaf_names, self.leaves, strict=True)]
        args, kwargs = _pytree.tree_unflatten(leaves, self.tree)
        return args, kwargs


def register_dataclasses(value: Any) -> None:
    """Make the dataclasses among arguments or results known to torch, which takes them apart by their fields then."""
    if isinstance(value, list | tuple):
        for item in value:
            register_dataclasses(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            register_dataclasses(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        if type(value) not in _pytree.SUPPORTED_NODES:
            torch.export.register_dataclass(type(value))
        for one in dataclasses.fields(value):
            register_dataclasses(getattr(value, one.name, None))


def key_text(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def input_tree(model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> CallInputs:
    """Name the tensors of a call after the parameters of the model's forward.

    Raises:
        UsageError: the arguments do not fit the signature.
    """
    register_dataclasses((args, kwargs))
    know_containers(model)
    forward = getattr(model, "forward", model)
    if isinstance(model, torch.jit.ScriptModule):
        return CallInputs(args, kwargs, [argument.name for argument in script_arguments(model)])
    try:
        signature = inspect.signature(forward)
    except (TypeError, ValueError):
        return CallInputs(args, kwargs, [])
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        wanted = ", ".join(str(parameter) for parameter in signature.parameters.values())
        raise UsageError(f"the inputs do not fit the model: {error}", f"its forward takes ({wanted})") from None
    names: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}.{i}" for i in range(max(0, len(args) - len(names)))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    return CallInputs(args, kwargs, names)


def output_names(spec: _pytree.TreeSpec) -> list[str]:
    """Stable names for output leaves: ``output`` alone, ``output_0`` in a tuple, the key in a dict or dataclass."""
    names = [name_of_path(parts) for parts in output_paths(spec)]
    taken: dict[str, int] = {}
    unique = []
    for name in names:
        count = taken.get(name, 0)
        taken[name] = count + 1
        unique.append(name if not count else f"{name}_{count}")
    return unique


def name_of_path(parts: Sequence[str]) -> str:
    """The name of an output that stands in a structure; ``*`` is a number."""
    text = "_".join(parts)
    return f"output_{text}" if parts and (parts[0].isdigit() or parts[0] == "*") else text or "output"


def output_paths(spec: _pytree.TreeSpec) -> list[tuple[str, ...]]:
    """Where each leaf stands, read from the structure: a class may refuse to be made of anything but tensors."""
    if spec.type is None:
        return [()]
    children = spec.children()
    keys = _keys(spec, len(children))
    return [(key, *path) for key, child in zip(keys, children, strict=True) for path in output_paths(child)]


def _keys(spec: _pytree.TreeSpec, count: int) -> list[str]:
    context = spec.context
    if spec.type in (dict, OrderedDict):
        return [str(key) for key in context]
    if spec.type is not None and hasattr(spec.type, "_fields"):
        return [str(name) for name in spec.type._fields]
    if isinstance(context, list | tuple) and len(context) == count and all(isinstance(one, str) for one in context):
        return list(context)
    named = names_in_container(context, count) if count else None
    if named is not None:
        return named
    known = _pytree.SUPPORTED_NODES.get(spec.type)
    if known is not None and known.flatten_with_keys_fn is not None:
        try:
            made = known.unflatten_fn(list(range(count)), context)
            return [key_text(key) for key, _ in known.flatten_with_keys_fn(made)[0]]
        except Exception:  # whatever a class does when it is made of numbers
            pass
    return [str(place) for place in range(count)]


def script_arguments(module: torch.jit.ScriptModule) -> list[Any]:
    """The declared arguments of a script's forward, without self."""
    forward: Any = module.forward
    return list(forward.schema.arguments[1:])
