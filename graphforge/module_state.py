"""What a module holds beside its weights, kept and put back: attributes that a call makes, caches on its classes.

A model may set attributes while it runs (``self.anchors`` for a new size, a cache in a dict or on its class).
While it is captured what it sets are values of the capture, useless afterwards; and a run that starts from what an
earlier one left is another model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["ModuleState"]

# Elements of one container up to which it is kept.
_MOST = 4096
_HOOKS = "hooks"


class ModuleState:
    """The attributes of a module, of its submodules and of their classes, as they are now."""

    def __init__(self, module: Any) -> None:
        self._objects: list[tuple[Any, str, dict[str, Any]]] = []
        self._classes: list[tuple[type, dict[str, Any]]] = []
        self._containers: list[tuple[Any, Any]] = []
        classes: dict[type, None] = {}
        for name, part in module.named_modules():
            if _is_script(part):
                continue
            held = dict(vars(part))
            self._objects.append((part, name, held))
            self._keep_containers(held)
            classes |= dict.fromkeys(one for one in type(part).__mro__ if _is_theirs(one))
        for one in classes:
            held = {name: value for name, value in vars(one).items() if not _is_fixed(name, value)}
            self._classes.append((one, held))
            self._keep_containers(held)

    def _keep_containers(self, held: dict[str, Any]) -> None:
        for name, value in held.items():
            if not name.endswith(_HOOKS) and isinstance(value, dict | list | set) and len(value) <= _MOST:
                self._containers.append((value, value.copy()))

    def changed(self) -> dict[str, Any]:
        """The attributes that are not what they were, by their paths, with what they were (None: not there)."""
        return dict(self._changes(put_back=False))

    def put_back(self) -> dict[str, Any]:
        """Make everything what it was; returns what was not, as ``changed`` does."""
        return dict(self._changes(put_back=True))

    def _changes(self, *, put_back: bool) -> Iterator[tuple[str, Any]]:
        for container, kept in self._containers:
            if not _is_same(container, kept):
                yield self._name_of(container), kept
                if put_back:
                    container.clear()
                    container.extend(kept) if isinstance(container, list) else container.update(kept)
        for part, path, held in self._objects:
            names = vars(part)
            for name in [name for name, value in held.items() if names.get(name, held) is not value]:
                if name == "training":  # its mode belongs to whoever calls it
                    continue
                yield f"{path}.{name}".lstrip("."), held[name]
                if put_back:
                    names[name] = held[name]
            for name in [name for name in names if name not in held]:
                yield f"{path}.{name}".lstrip("."), None
                if put_back:
                    del names[name]
        for one, held in self._classes:
            now = {name: value for name, value in vars(one).items() if not _is_fixed(name, value)}
            for name in {**held, **now}:
                if name in held and name in now and held[name] is now[name]:
                    continue
                yield f"{one.__qualname__}.{name}", held.get(name)
                if put_back and name in held:
                    setattr(one, name, held[name])
                elif put_back:
                    delattr(one, name)

    def _name_of(self, container: Any) -> str:
        for part, path, held in self._objects:
            for name, value in held.items():
                if value is container:
                    if name in ("_buffers", "_parameters", "_modules"):
                        return path or type(part).__name__
                    return f"{path}.{name}".lstrip(".")
        for one, held in self._classes:
            for name, value in held.items():
                if value is container:
                    return f"{one.__qualname__}.{name}"
        return "?"


def _is_same(container: Any, kept: Any) -> bool:
    if len(container) != len(kept):
        return False
    if isinstance(container, dict):
        return all(container.get(key, kept) is value for key, value in kept.items())
    if isinstance(container, list):
        return all(one is other for one, other in zip(container, kept, strict=True))
    return bool(container == kept)


def _is_script(part: Any) -> bool:
    import torch

    return isinstance(part, torch.jit.ScriptModule)


def _is_theirs(one: type) -> bool:
    return one is not object and str(one.__module__).split(".")[0] not in ("torch", "builtins", "typing", "abc")


def _is_fixed(name: str, value: Any) -> bool:
    """What belongs to the definition of a class, not to its state."""
    if name.startswith("__") or name in ("_abc_impl", "_is_protocol"):
        return True
    return callable(value) or isinstance(value, staticmethod | classmethod | property)
