"""`mmpose:` and `mmdet:` specs: found by name, built without downloads, weights by key, compiled with decoding."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mmpose", reason="needs mmpose: scripts/openmmlab.sh makes the environment, scripts/test runs this")

import graphforge
from graphforge.errors import GraphForgeError, UsageError
from graphforge.frontend.load import LoadedModel
from graphforge.frontend.openmmlab.configs import find_config
from graphforge.frontend.openmmlab.load import import_codebase

TINY = "mmpose:rtmpose-t_8xb256-420e_coco-256x192"
NANO = "mmdet:rtmdet_nano_320-8xb32_coco-person"


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return graphforge.load_model(TINY, kwargs={"model.test_cfg.flip_test": False})


def stock_model(loaded: LoadedModel) -> Any:
    """What the registry built, inside the module that is compiled."""
    module: Any = loaded.module
    return module.model


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    import socket

    monkeypatch.setattr(socket.socket, "connect", refused)


def test_pose_decoded_at_any_batch(tiny: LoadedModel, tmp_path: Path) -> None:
    bundle = graphforge.compile(tiny, dynamic_shapes="input:0=1..4", output=tmp_path / "pose")
    assert bundle.manifest["verification"]["verdict"] == "passed"
    assert [one["name"] for one in bundle.manifest["outputs"]] == ["keypoints", "keypoint_scores"]
    assert bundle.manifest["capture"]["method"] == "export"
    used = {one["function"].rpartition(".")[2] for one in bundle.manifest["capture"]["substitutions"]}
    assert {"decode", "add_pred_to_datasample"} <= used
    # the reference is the framework's own predict, and decoding is in the file
    report = bundle.run({"input": np.random.default_rng(2).normal(size=(3, 3, 256, 192)).astype(np.float32)})
    given = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 3, 256, 192)).astype(np.float32))
    assert tiny.module is not None
    with torch.no_grad():
        expected = tiny.module(given)
    np.testing.assert_allclose(report.outputs["keypoints"], expected["keypoints"].numpy(), atol=1e-3)


def test_flip_test_is_in_the_graph_where_the_config_asks(tiny: LoadedModel) -> None:
    with_flip = graphforge.load_model(TINY)
    assert stock_model(with_flip).test_cfg["flip_test"] is True
    assert stock_model(tiny).test_cfg["flip_test"] is False


def test_what_the_head_returns(tmp_path: Path) -> None:
    loaded = graphforge.load_model(TINY, decode="none")
    bundle = graphforge.compile(loaded, output=tmp_path / "raw")
    assert [one["name"] for one in bundle.manifest["outputs"]] == ["simcc_x", "simcc_y"]
    assert bundle.manifest["openmmlab"]["decode"] == "none"


def test_detector_decoded(tmp_path: Path) -> None:
    bundle = graphforge.compile(NANO, output=tmp_path / "nano")
    assert bundle.manifest["verification"]["verdict"] == "passed"
    assert [one["name"] for one in bundle.manifest["outputs"]] == ["boxes", "scores", "labels"]
    assert bundle.manifest["dataset"]["classes"] == ["person"]
    assert any("random" in note for note in bundle.manifest["notes"])


def test_facts_of_the_dataset_are_in_the_manifest(tiny: LoadedModel) -> None:
    facts = tiny.facts["dataset"]
    assert facts["keypoints"][:3] == ["nose", "left_eye", "right_eye"]
    assert tiny.facts["openmmlab"]["flip_indices"][1:3] == [2, 1]
    assert [15, 13] in facts["skeleton"]
    assert len(facts["link_colours"]) == len(facts["skeleton"])
    assert json.loads(json.dumps(facts)) == facts


def test_nothing_is_downloaded(no_network: None) -> None:
    config = "mmpose:td-hm_res50_8xb64-210e_coco-256x192"  # it names weights of torchvision
    assert graphforge.load_model(config).module is not None


def test_a_typo_is_told_with_what_is_near() -> None:
    with pytest.raises(GraphForgeError, match="mmpose has no config 'rtmpose-t_8xb256-420e_coco-256x193'") as told:
        graphforge.load_model(TINY[:-1] + "3")
    assert "did you mean rtmpose-t_8xb256-420e_coco-256x192" in str(told.value)


def test_a_short_name_is_told_with_those_that_it_may_mean() -> None:
    with pytest.raises(GraphForgeError, match="mmdet has no config 'rtmdet'") as told:
        find_config("mmdet", "rtmdet")
    assert "rtmdet_m_8xb32-300e_coco" in str(told.value)
    assert "more" in str(told.value)
    with pytest.raises(GraphForgeError) as told:
        find_config("mmdet", "rtmdet nano")
    assert "did you mean rtmdet_nano_320-8xb32_coco-person?" in str(told.value)


def test_a_package_that_is_missing_is_told_in_a_sentence() -> None:
    with pytest.raises(GraphForgeError, match="mmagic is not installed") as told:
        graphforge.load_model("mmagic:srcnn_x4k915_1xb16-1000k_div2k")
    assert "pip install --no-deps mmagic" in str(told.value)


def test_what_a_package_needs_and_does_not_have_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mmagic").mkdir()
    (tmp_path / "mmagic" / "__init__.py").touch()
    (tmp_path / "mmagic" / "models.py").write_text("import nobodys_diffusers.models\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GraphForgeError, match="mmagic cannot be imported: No module named 'nobodys_diffusers'") as told:
        import_codebase("mmagic")
    assert "pip install --no-deps nobodys_diffusers" in str(told.value)
    del sys.modules["mmagic"]  # for good: monkeypatch would put it back


def test_a_segmenter_by_the_same_code() -> None:
    pytest.importorskip("mmseg")
    picture = torch.randn([2, 3, 64, 64], generator=torch.Generator().manual_seed(3))
    loaded: Any = graphforge.load_model("mmseg:fast_scnn_8xb4-160k_cityscapes-512x1024")
    with torch.no_grad():
        classes = loaded.module(picture)["classes"]
        expected = torch.stack([one.pred_sem_seg.data[0] for one in loaded.module.model.predict(picture)])
    assert classes.equal(expected)
    assert classes.unique().numel() > 1
    assert len(loaded.facts["dataset"]["classes"]) == 19


def test_a_classifier_by_the_same_code() -> None:
    pytest.importorskip("mmpretrain", reason="needs mmpretrain, which scripts/openmmlab.sh does not install")
    picture = torch.randn([2, 3, 64, 64], generator=torch.Generator().manual_seed(3))
    loaded: Any = graphforge.load_model("mmpretrain:resnet18_8xb32_in1k")
    with torch.no_grad():
        expected = torch.stack([one.pred_score for one in loaded.module.model.predict(picture)])
        torch.testing.assert_close(loaded.module(picture)["scores"], expected)


def test_a_type_that_nobody_registered_is_named(tmp_path: Path) -> None:
    config = tmp_path / "mine.py"
    config.write_text("model = dict(type='TopdownPoseEstimator', backbone=dict(type='MyNet'))\n")
    with pytest.raises(GraphForgeError, match="MyNet"):
        graphforge.load_model(f"mmpose:{config}")


def test_a_config_that_fails_is_told_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "mine.py"
    config.write_text("width = 3\nmodel = dict(type='TopdownPoseEstimator', depth=1 / 0)\n")
    with pytest.raises(GraphForgeError, match="ZeroDivisionError"):
        graphforge.load_model(f"mmpose:{config}")
    config.write_text("width = 3\n")
    with pytest.raises(GraphForgeError, match="describes no model"):
        graphforge.load_model(f"mmpose:{config}")


def test_a_package_that_a_config_needs_is_named(tmp_path: Path) -> None:
    config = tmp_path / "mine.py"
    config.write_text(
        "custom_imports = dict(imports=['nobodys_heads.of_theirs'], allow_failed_imports=False)\n"
        "model = dict(type='TopdownPoseEstimator')\n"
    )
    with pytest.raises(GraphForgeError, match="imports 'nobodys_heads', which is not installed"):
        graphforge.load_model(f"mmpose:{config}")
    config.write_text("model = dict(type='TopdownPoseEstimator', backbone=dict(type='mmagic.MSRResNet'))\n")
    with pytest.raises(GraphForgeError, match=r"needs mmagic, which is not installed: it names mmagic\.MSRResNet"):
        graphforge.load_model(f"mmpose:{config}")


def test_an_unknown_key_of_kwargs_is_refused() -> None:
    with pytest.raises(UsageError, match="takes no 'flip_test'") as told:
        graphforge.load_model(TINY, kwargs={"flip_test": False})
    assert "model.test_cfg.flip_test" in str(told.value)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def saved(module: Any, file: Path, **more: Any) -> Path:
    """As mmengine's hook saves it: averages of its log and numpy scalars beside the weights."""
    from mmengine.logging.history_buffer import HistoryBuffer

    hub = {"log_scalars": {"train/loss": HistoryBuffer([1.0, 2.0], [1, 1])}, "runtime_info": {"iter": np.int64(7)}}
    meta = {"epoch": 3, "best": np.float64(0.5), "dataset_meta": {"classes": ("person",)}}
    torch.save({"meta": meta, "state_dict": module.state_dict(), "message_hub": hub, **more}, file)
    return file


def test_a_checkpoint_of_mmengine_is_read_without_trust(tiny: LoadedModel, tmp_path: Path) -> None:
    other = stock_model(graphforge.load_model(TINY))
    with torch.no_grad():
        other.head.cls_x.weight.fill_(0.25)
    loaded = graphforge.load_model(f"{TINY},{saved(other, tmp_path / 'c.pth')}")
    assert stock_model(loaded).head.cls_x.weight.eq(0.25).all()
    assert not any("random" in note for note in loaded.notes)
    again = graphforge.load_model(TINY, checkpoint=tmp_path / "c.pth")
    assert stock_model(again).head.cls_x.weight.eq(0.25).all()


def test_averaged_or_plain_weights(tiny: LoadedModel, tmp_path: Path) -> None:
    model = stock_model(graphforge.load_model(TINY))
    plain = {f"module.{key}": torch.full_like(value, 0.5) for key, value in model.state_dict().items()}
    file = saved(model, tmp_path / "c.pth", ema_state_dict={**plain, "steps": torch.tensor(9)})
    loaded = graphforge.load_model(f"{TINY},{file}", kwargs={"weights": "plain"})
    assert stock_model(loaded).head.cls_x.weight.eq(0.5).all()
    loaded = graphforge.load_model(f"{TINY},{file}")
    assert any("averaged (EMA)" in note for note in loaded.notes)
    with pytest.raises(GraphForgeError, match="no averaged"):
        graphforge.load_model(f"{TINY},{saved(model, tmp_path / 'd.pth')}", kwargs={"weights": "ema"})


def test_a_checkpoint_of_another_model_is_told_by_key(tiny: LoadedModel, tmp_path: Path) -> None:
    file = saved(stock_model(tiny), tmp_path / "tiny.pth")
    with pytest.raises(GraphForgeError, match="does not fit: of the model's") as told:
        graphforge.load_model(f"mmpose:rtmpose-s_8xb256-420e_coco-256x192,{file}")
    assert "another shape" in str(told.value)
    assert "backbone.stem.0.conv.weight" in str(told.value)


def test_code_in_a_checkpoint_is_refused(tiny: LoadedModel, tmp_path: Path) -> None:
    torch.save({"state_dict": stock_model(tiny).state_dict(), "hook": np.random.Generator}, tmp_path / "c.pth")
    with pytest.raises(GraphForgeError, match=r"contains more than tensors and what mmengine writes: numpy\.random"):
        graphforge.load_model(f"{TINY},{tmp_path / 'c.pth'}")
