"""RoiAlign in plain operators, against the operator in plain torch: one level and several, every border."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from graphforge.errors import GraphForgeError, UsageError
from graphforge.ir import HOME_OPSET, Builder
from graphforge.ops._torchvision_kernels import roi_align
from graphforge.ops.multi_scale_roi_align import multi_scale_roi_align
from graphforge.passes.lower_semantic_ops import LowerSemanticOps
from graphforge.runners.session import new_session
from graphforge.transform import Pipeline, VerifyGraph

MAPS = [(2, 3, 20, 18), (2, 3, 10, 9), (2, 3, 5, 5)]
SCALES = [0.5, 0.25, 0.125]


def lowered(op_type: str, domain: str, values: dict[str, tuple[Any, Any]], **attributes: Any) -> ir.Model:
    inputs = [
        ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(dims)) for name, (dtype, dims) in values.items()
    ]
    graph = ir.Graph(inputs, [], nodes=[], name="g", opset_imports={"": HOME_OPSET, "graphforge": 1})
    made: Any = Builder(graph).node(op_type, inputs, _domain=domain, **attributes)
    made.name = "pooled"
    graph.outputs.append(made)
    model = ir.Model(graph, ir_version=10)
    Pipeline([LowerSemanticOps(fixed_shapes=True, roi_align="portable")]).run(model, [VerifyGraph()])
    assert not {node.op_type for node in model.graph} & {"RoiAlign", "MultiScaleRoiAlign"}
    return model


def run(model: ir.Model, *arrays: np.ndarray) -> np.ndarray:
    session = new_session(model)
    names = [value.name for value in session.get_inputs()]
    result: np.ndarray = session.run(None, dict(zip(names, arrays, strict=True)))[0]
    return result


def rois_like(random: np.random.Generator, count: int) -> np.ndarray:
    """Rows of (image, corners): inside, across and beyond the borders, thin ones."""
    corner = random.uniform(-20, 40, (count, 2))
    sides = random.uniform(0, 40, (count, 2)) * (random.random((count, 2)) > 0.1)
    return np.concatenate([random.integers(0, 2, (count, 1)), corner, corner + sides], axis=1).astype(np.float32)


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("count", [0, 60])
def test_every_box_from_the_map_of_its_level(count: int, aligned: int) -> None:
    random = np.random.default_rng(0)
    kind = ir.DataType.FLOAT
    inputs = {"rois": (kind, ("R", 5)), "levels": (ir.DataType.INT64, ("R",))}
    inputs |= {f"map_{place}": (kind, shape) for place, shape in enumerate(MAPS)}
    settings = {"output_height": 3, "output_width": 4, "sampling_ratio": 2, "aligned": aligned}
    model = lowered("MultiScaleRoiAlign", "graphforge", inputs, spatial_scales=SCALES, **settings)
    maps = [random.normal(size=shape).astype(np.float32) for shape in MAPS]
    rois, levels = rois_like(random, count), random.integers(0, 3, count)
    expected = multi_scale_roi_align(
        [torch.from_numpy(one) for one in maps], torch.from_numpy(rois), torch.from_numpy(levels), SCALES, 3, 4, 2,
        bool(aligned),
    )  # fmt: skip
    np.testing.assert_allclose(run(model, rois, levels, *maps), expected.numpy(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("mode", ["half_pixel", "output_half_pixel"])
def test_onnx_roi_align(mode: str) -> None:
    random = np.random.default_rng(1)
    kind = ir.DataType.FLOAT
    inputs = {"x": (kind, MAPS[0]), "boxes": (kind, ("R", 4)), "images": (ir.DataType.INT64, ("R",))}
    model = lowered(
        "RoiAlign", "", inputs, output_height=2, output_width=3, sampling_ratio=3, spatial_scale=0.5,
        coordinate_transformation_mode=mode,
    )  # fmt: skip
    x, rois = random.normal(size=MAPS[0]).astype(np.float32), rois_like(random, 60)
    found = run(model, x, np.ascontiguousarray(rois[:, 1:]), rois[:, 0].astype(np.int64))
    expected = roi_align(torch.from_numpy(x), torch.from_numpy(rois), 0.5, 2, 3, 3, mode == "half_pixel")
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("dims", "ratio", "message"), [((1, 2, 8, 8), 0, "fixed number of samples"), ((1, 2, "H", 8), 2, "fixed shape")]
)
def test_refusals(dims: Any, ratio: int, message: str) -> None:
    kind = ir.DataType.FLOAT
    inputs = {"x": (kind, dims), "boxes": (kind, ("R", 4)), "images": (ir.DataType.INT64, ("R",))}
    with pytest.raises(GraphForgeError, match=message):
        lowered("RoiAlign", "", inputs, output_height=2, output_width=2, sampling_ratio=ratio)


def test_an_unknown_form_is_refused() -> None:
    model = ir.Model(ir.Graph([], [], nodes=[], name="g", opset_imports={"": HOME_OPSET}), ir_version=10)
    with pytest.raises(UsageError, match="no roi_align 'fast'"):
        Pipeline([LowerSemanticOps(roi_align="fast")]).run(model)
