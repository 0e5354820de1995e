"""What transformers brings for the export of its models: its caches as containers of named tensors, its replacements.

Nothing here imports transformers: whoever has a model of it has imported it.  A version that brings less is used as far
as it goes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["export_helpers", "know_containers", "names_in_container"]

_LIBRARY = "transformers"
# What its exporter must have for caches to be taken apart; none of it is promised by the library.
_FOR_CACHES = ("Cache", "_iter_subclasses", "_pytree_flatten", "_pytree_unflatten", "is_cache_class")


def _exporter(model: Any) -> Any:
    """The library's own exporter, None where the model has no module of the library's or the library none to offer.

    Importing it takes a second, and others import the library for a tokeniser of theirs: so the model is asked first.
    """
    modules = getattr(model, "modules", None)
    if _LIBRARY not in sys.modules or modules is None:
        return None
    if not any(type(module).__module__.startswith(f"{_LIBRARY}.") for module in modules()):
        return None
    try:
        return import_module(f"{_LIBRARY}.exporters.exporter_dynamo")
    except Exception:  # an older version, or one whose own imports fail
        return None


def know_containers(model: Any) -> None:
    """Let PyTorch look into the caches that a model of the library takes and returns, tensor by tensor.

    The classes are declared as the library's own export does it (`register_pytree_node`), with names for their tensors.
    """
    exporter = _exporter(model)
    if not all(hasattr(exporter, name) for name in _FOR_CACHES):
        return
    homes = {type(module).__module__ for module in model.modules()}
    from torch.utils import _pytree

    for kind in _caches(exporter, homes):
        if kind not in _pytree.SUPPORTED_NODES:
            _pytree.register_pytree_node(
                kind,
                exporter._pytree_flatten,
                exporter._pytree_unflatten,
                serialized_type_name=f"{kind.__module__}:{kind.__qualname__}",
                flatten_with_keys_fn=_named_flatten(exporter),
            )


def _caches(exporter: Any, homes: set[str]) -> list[type]:
    found: list[type] = list(exporter._iter_subclasses(exporter.Cache))
    for home in sorted(homes):
        for kind in vars(sys.modules.get(home, sys)).values():
            if isinstance(kind, type) and kind.__module__ == home and exporter.is_cache_class(kind):
                found.append(kind)
    return list(dict.fromkeys(found))


def _named_flatten(exporter: Any) -> Callable[[Any], tuple[list[tuple[Any, Any]], Any]]:
    from torch.utils import _pytree

    def flatten(cache: Any) -> tuple[list[tuple[Any, Any]], Any]:
        leaves, context = exporter._pytree_flatten(cache)
        names = names_in_container(context, len(leaves)) or [str(place) for place in range(len(leaves))]
        return [(_pytree.MappingKey(name), leaf) for name, leaf in zip(names, leaves, strict=True)], context

    return flatten


def names_in_container(context: Any, count: int) -> list[str] | None:
    """Names of the tensors of a cache by where they stand in it (``layers_0_keys``), from what is kept beside them.

    None where ``context`` is not that of a cache.
    """
    names: dict[int, str] = {}

    def walk(part: Any, path: tuple[str, ...]) -> None:
        if isinstance(part, list):
            for place, item in enumerate(part):
                walk(item, (*path, str(place)))
        elif isinstance(part, dict):
            if part.get("_t") in ("tensor", "sym"):
                names[part["i"]] = "_".join(path)
            elif part.get("_t") == "items":
                for key, item in part["v"]:
                    walk(item, (*path, str(key)))
            elif "_t" in part:
                walk(part.get("s", part.get("v")), path)
            else:
                for key, item in part.items():
                    walk(item, (*path, key))

    walk(context, ())
    return [names[place] for place in range(count)] if sorted(names) == list(range(count)) else None


@contextmanager
def export_helpers(model: torch.nn.Module) -> Iterator[None]:
    """Inside, what the library itself replaces in its models while they are exported, and no state of earlier calls."""
    exporter = _exporter(model)
    if exporter is None:
        yield
        return
    with ExitStack() as stack:
        if hasattr(exporter, "reset_model_state"):
            stack.enter_context(exporter.reset_model_state(model))
        for owner, attribute, made in _replacements():
            stack.callback(setattr, owner, attribute, getattr(owner, attribute))
            setattr(owner, attribute, made)
        yield


def _replacements() -> list[tuple[Any, str, Any]]:
    """(owner, attribute, what takes its place), of what is imported already: it would import all its models."""
    tools = import_module(f"{_LIBRARY}.exporters.utils")
    found = []
    for path, attribute, factory in getattr(tools, "_PATCHES", {}).get("dynamo", []):
        home = path
        while home and home not in sys.modules:
            home = home.rpartition(".")[0]
        if not home.startswith(_LIBRARY):
            continue  # what it replaces in torch itself is our part
        owner: Any = sys.modules[home]
        for name in path[len(home) :].strip(".").split(".") if path != home else ():
            # a module's own names: one that imports its parts when asked for them would do so
            owner = vars(owner).get(name) if isinstance(owner, ModuleType) else getattr(owner, name, None)
        original = getattr(owner, attribute, None)
        if owner is not None and original is not None:
            found.append((owner, attribute, factory(original)))
    return found
