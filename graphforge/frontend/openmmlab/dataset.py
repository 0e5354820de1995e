"""What a model's outputs are called and how they are drawn: classes, keypoints, skeleton, colours, mirrored pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["dataset_facts", "dataset_meta"]


def dataset_meta(codebase: str, config: Any, saved: Mapping[str, Any] | None) -> dict[str, Any]:
    """The framework's own facts of the dataset: what a checkpoint carries goes before what the config names.

    Args:
        codebase: the package.
        config: the config.
        saved: ``dataset_meta`` of the checkpoint.
    """
    known = _of_config(codebase, _test_dataset(config))
    if not saved:
        return known
    lowered = {str(key).lower(): value for key, value in saved.items()}
    return {**known, **lowered}


def _of_config(codebase: str, dataset: Mapping[str, Any]) -> dict[str, Any]:
    if codebase == "mmpose":
        from mmpose.datasets.datasets.utils import parse_pose_metainfo

        given = dataset.get("metainfo") or _of_class(codebase, dataset)
        return dict(parse_pose_metainfo(dict(given))) if given else {}
    known = {**_of_class(codebase, dataset), **(dataset.get("metainfo") or {})}
    return {str(key).lower(): value for key, value in known.items()}


def _test_dataset(config: Any) -> dict[str, Any]:
    for loader in ("test_dataloader", "val_dataloader", "train_dataloader"):
        dataset = (config.get(loader) or {}).get("dataset")
        while isinstance(dataset, dict) and "type" in dataset:
            inner = dataset.get("dataset") or dataset.get("datasets")
            if inner is None:
                return dataset
            # a dataset made of others says itself what its keypoints are
            if dataset.get("metainfo"):
                return dataset
            dataset = inner[0] if isinstance(inner, list | tuple) and inner else inner
    return {}


def _of_class(codebase: str, dataset: Mapping[str, Any]) -> dict[str, Any]:
    from mmengine.registry import DATASETS

    name = dataset.get("type")
    with DATASETS.switch_scope_and_registry(codebase) as registry:
        found = registry.get(name) if isinstance(name, str) else name
    return dict(getattr(found, "METAINFO", None) or {})


def dataset_facts(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as plain data, by the keys of `graphforge.runtime.dataset`; colours as RGB."""
    facts: dict[str, Any] = {}
    name = meta.get("dataset_name")
    if name:
        facts["name"] = str(name)
    classes = meta.get("classes")
    if classes:
        facts["classes"] = [str(one) for one in ([classes] if isinstance(classes, str) else classes)]
    if meta.get("palette") is not None:
        facts["class_colours"] = _rows(meta["palette"])
    if meta.get("keypoint_id2name"):
        names = meta["keypoint_id2name"]
        facts["keypoints"] = [str(names[index]) for index in sorted(names)]
        facts["keypoint_colours"] = _rows(meta.get("keypoint_colors", ()))
        facts["skeleton"] = _rows(meta.get("skeleton_links", ()))
        facts["link_colours"] = _rows(meta.get("skeleton_link_colors", ()))
        facts["sigmas"] = [float(str(sigma)) for sigma in meta.get("sigmas", ())]
    return facts


def _rows(rows: Any) -> list[list[int]]:
    return [[int(value) for value in row] for row in rows if not isinstance(row, str)]
