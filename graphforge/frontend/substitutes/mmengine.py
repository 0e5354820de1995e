"""Substitutes for mmengine's data elements: they compare lengths, which depend on data, and make arrays of tensors."""

from __future__ import annotations

from typing import Any

from graphforge.frontend.substitution import substitute

__all__: list[str] = []

_PRIVATE = ("_metainfo_fields", "_data_fields")


@substitute("mmengine.structures.instance_data.InstanceData.__setattr__", required=False)
def set_field(self: Any, name: str, value: Any) -> None:
    """Kept without asking whether all fields are of one length; they are, or eager had refused."""
    if name in _PRIVATE:
        object.__setattr__(self, name, value)
    else:
        self.set_field(value, name, field_type="data")


@substitute("mmengine.structures.base_data_element.BaseDataElement.set_metainfo", required=False)
def set_metainfo(self: Any, metainfo: dict[str, Any]) -> None:
    """Without copies: a size that is not known yet cannot be copied."""
    for name, value in metainfo.items():
        self.set_field(name=name, value=value, field_type="metainfo", dtype=None)


def _itself(self: Any) -> Any:
    return self


for _method in ("numpy", "cpu", "detach"):
    substitute(f"mmengine.structures.base_data_element.BaseDataElement.{_method}", required=False)(_itself)
