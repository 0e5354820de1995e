"""The steps that make a model's input of a picture: their pixels, their way back, and the list as data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from graphforge.errors import GraphForgeError
from graphforge.runtime import steps as every_step
from graphforge.runtime import warping
from graphforge.runtime.detections import Detections
from graphforge.runtime.placement import Placement
from graphforge.runtime.preprocess import check_steps, completed, prepared, read_preprocess, record_of, steps_of
from graphforge.runtime.steps import (
    CentreCrop,
    Colour,
    CropBox,
    Dtype,
    Layout,
    Letterbox,
    Normalise,
    Pad,
    Resize,
    Scale,
    Step,
)
from graphforge.spec import DimRange, TensorSpec


def _picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warping, "opencv", lambda: None)


# -- pixels ------------------------------------------------------------------------------------------------------------

# What cv2.resize (INTER_LINEAR) of OpenCV 4.14 and 5.0 makes of these; floats, rounded, give 192 for the 193, 204 for
# the 203 at the end and 50 for the 49.
SMALL = np.array([[0, 37, 255, 14], [200, 90, 13, 77], [5, 130, 66, 231]], np.uint8)[..., None]
SMALL_RESIZED = {
    (6, 2): [[50, 50, 74, 170, 112, 30], [54, 87, 109, 64, 123, 193]],
    (3, 5): [[6, 146, 54], [76, 108, 59], [182, 52, 66], [88, 79, 149], [26, 98, 203]],
    (7, 5): [
        [0, 13, 34, 146, 238, 100, 14],
        [80, 72, 60, 108, 150, 82, 39],
        [200, 161, 98, 52, 18, 54, 77],
        [83, 94, 112, 79, 54, 125, 169],
        [5, 49, 121, 98, 78, 172, 231],
    ],
}


@pytest.mark.parametrize("size", SMALL_RESIZED)
def test_resizing_without_opencv_gives_opencvs_bytes(size: tuple[int, int], without_opencv: None) -> None:
    assert warping.resized(SMALL, size)[..., 0].tolist() == SMALL_RESIZED[size]


@pytest.mark.parametrize(
    ("own", "size"),
    [
        ((427, 640), (300, 416)),
        ((480, 640), (640, 640)),
        ((99, 133), (200, 300)),
        ((480, 640), (320, 240)),
        ((1, 1), (4, 4)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_with_and_without_opencv_is_the_same_to_the_bit(
    own: tuple[int, int], size: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2", reason="compares with OpenCV")
    picture = _picture(*own)[..., :channels]
    floats = picture.astype(np.float32) / 255
    theirs, theirs_of_floats = warping.resized(picture, size), warping.resized(floats, size)
    monkeypatch.setattr(warping, "opencv", lambda: None)
    np.testing.assert_array_equal(warping.resized(picture, size), theirs)
    np.testing.assert_allclose(warping.resized(floats, size), theirs_of_floats, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_warping_with_and_without_opencv_differs_where_a_value_lies_in_the_middle_of_two(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4 rounds places to 1/32 of a pixel, and is not asked")
    random = np.random.default_rng(seed)
    factor = random.uniform(0.3, 2.5)
    placement = Placement((factor, factor * 1.1), (96 - factor * 200, 128 - factor * 180))
    value = np.array([114, 0, 255])
    theirs = warping.warped(_picture(300, 400, seed), placement, (192, 256), value).astype(int)
    monkeypatch.setattr(warping, "opencv", lambda: None)
    ours = warping.warped(_picture(300, 400, seed), placement, (192, 256), value)
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.005


def test_a_warp_takes_the_value_outside_and_mixes_it_at_the_edge(without_opencv: None) -> None:
    white = np.full((2, 2, 1), 200, np.uint8)
    out = warping.warped(white, Placement((1.0, 1.0), (1.5, 1.0)), (5, 4), np.array([100]))[..., 0]
    assert out.tolist() == [[100] * 5, [100, 150, 200, 150, 100], [100, 150, 200, 150, 100], [100] * 5]


def test_colour_scale_and_mean_are_computed_as_frameworks_compute_them() -> None:
    picture = _picture(5, 7)
    steps = [Colour("bgr"), Normalise((103.53, 116.28, 123.675), (57.375, 57.12, 58.395)), Layout()]
    array, _ = prepared(steps, picture)
    floats = picture[..., ::-1].astype(np.float32).transpose(2, 0, 1)
    mean = np.array([103.53, 116.28, 123.675], np.float32).reshape(3, 1, 1)
    std = np.array([57.375, 57.12, 58.395], np.float32).reshape(3, 1, 1)
    np.testing.assert_array_equal(array, (floats - mean) / std)
    halved, _ = prepared([Scale(1 / 255), Dtype("float16")], picture)
    np.testing.assert_array_equal(halved, (picture.astype(np.float32) / np.float32(255)).astype(np.float16))


def test_grey_is_pillows() -> None:
    picture = _picture(20, 30)
    grey, _ = prepared([Colour("grey")], picture)
    np.testing.assert_array_equal(grey[..., 0], np.asarray(Image.fromarray(picture).convert("L")))


def test_torchvisions_resize_and_centre_crop() -> None:
    """As ``Resize(256)`` then ``CenterCrop(224)`` of torchvision do it with Pillow's filter."""
    picture = _picture(300, 401)
    steps = [Resize((256, 256), "cover", "antialias-bilinear"), CentreCrop((224, 224))]
    array, placement = prepared(steps, picture)
    resized = Image.fromarray(picture).resize((342, 256), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(array, np.asarray(resized.crop((59, 16, 283, 240))))
    np.testing.assert_allclose(placement.points_to_picture(np.array([[0.0, 0.0]])), [[59 * 401 / 342, 16 * 300 / 256]])


# -- the way back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "size"),
    [
        ([Resize((64, 48))], (64, 48)),
        ([Resize((64, 64), "inside"), Pad((64, 64), value=114)], (64, 64)),
        ([Resize((64, 64), "inside"), Pad((64, 64), where="centre")], (64, 64)),
        ([Resize((60, 40), "either-way"), Pad(divisor=32)], (64, 64)),
        ([Letterbox((64, 64))], (64, 64)),
        ([Letterbox((96, 32))], (96, 32)),
        ([CropBox((48, 64))], (48, 64)),
        ([Resize((40, 40), "cover"), CentreCrop((32, 32))], (32, 32)),
    ],
)
@pytest.mark.parametrize("own", [(100, 150), (150, 90)])
def test_a_bright_spot_comes_back_to_where_it_was(
    steps: list[Step], size: tuple[int, int], own: tuple[int, int]
) -> None:
    """The middle of a white square, found in the prepared picture, is the middle of the square in the picture."""
    picture = np.zeros((*own, 3), np.uint8)
    picture[60:80, 40:60] = 255
    array, placement = prepared(steps, picture, (20, 30, 80, 110))
    assert (array.shape[1], array.shape[0]) == size
    bright = np.where(array[..., 0] == 114, 0, array[..., 0]).astype(float)
    rows, columns = np.mgrid[: array.shape[0], : array.shape[1]] + 0.5
    spot = np.array([(columns * bright).sum(), (rows * bright).sum()]) / bright.sum()
    pixel = 1 / min(placement.scale)
    np.testing.assert_allclose(placement.points_to_picture(spot), [50, 70], atol=0.6 * pixel)
    box = np.array([[3.0, 4.0, 50.0, 60.0]])
    np.testing.assert_allclose(placement.boxes_to_picture(placement.boxes_to_input(box), own[::-1]), box)
    np.testing.assert_allclose(placement.points_to_picture(placement.points_to_input(box[:, :2])), box[:, :2])


@pytest.mark.parametrize("fill", [Pad((64, 64)), Pad((64, 64), where="centre"), Letterbox((64, 64))])
def test_boxes_that_reach_into_what_was_filled_in_are_cut_where_that_is_asked(fill: Pad | Letterbox) -> None:
    reaching = np.array([[-4.0, -2.0, 70.0, 66.0], [10.0, 30.0, 20.0, 36.0]])  # of a picture 64 wide, 20 high
    for cut in (False, True):
        _, placement = prepared([replace(fill, cut=cut)], np.zeros((20, 64, 3), np.uint8))
        found = Detections(placement.boxes_to_input(reaching), np.ones(2), np.zeros(2, np.int64))
        boxes = found.on_picture(placement, (64, 20), (64, 64)).boxes
        np.testing.assert_allclose(boxes, [[0, 0, 64, 20], [10, 20, 20, 20]] if cut else reaching, atol=1e-5)


def test_the_crop_of_a_box_is_that_of_mmpose() -> None:
    """Box 100x100 around (150, 150), padded by 1.25 and widened from 125x125 to 125x166.67 for an input of 192x256."""
    picture = _picture(300, 300)
    _, placement = prepared([CropBox((192, 256))], picture, (100, 100, 200, 200))
    scale = np.array([125, 125 * 256 / 192])
    points = np.array([[0.0, 0.0], [96.0, 128.0], [191.5, 3.0]])
    expected = points / [192, 256] * scale + 150 - 0.5 * scale
    np.testing.assert_allclose(placement.points_to_picture(points), expected, atol=1e-4)


def test_masks_lose_what_the_picture_does_not_reach() -> None:
    _, placement = prepared([Resize((64, 64), "inside"), Pad((64, 64))], _picture(50, 100))
    masks = np.zeros((1, 64, 64), np.float32)
    masks[0, :32] = 1
    cut = placement.masks_to_picture(masks, (100, 50), (64, 64))
    assert cut.shape == (1, 32, 64)
    assert cut.all()


# -- the list as data --------------------------------------------------------------------------------------------------

EVERY = (
    Resize((640, 480), "inside", "antialias-bicubic"),
    Pad(divisor=32, value=(1, 2, 3), where="centre"),
    Letterbox((64, 64), 114),
    CropBox((192, 256), 1.1, True),
    CentreCrop((3, 2)),
    Colour("bgr"),
    Dtype("float32"),
    Scale(1 / 255),
    Normalise((1.5, 2, 3), 4),
    Layout("nhwc"),
)


def test_every_step_is_written_and_read_back() -> None:
    assert {step.name for step in EVERY} == set(every_step.STEPS)
    assert steps_of(record_of(EVERY)) == EVERY


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([{"step": "normalize"}], ["there is no step 'normalize'", "did you mean 'normalise'?"]),
        ([{"step": "Collect"}], ["there is no step 'Collect'", "the steps are: resize, pad,"]),
        (
            [{"step": "resize", "keep_ratio": True}],
            ["step resize has no key 'keep_ratio'", "its keys are: size, fit, filter"],
        ),
        ([{"step": "pad", "valeu": 3}], ["has no key 'valeu'", "did you mean 'value'?"]),
        ([{"step": "resize", "size": [64]}], ["preprocess[0].size: expected [width, height] in pixels, got [64]"]),
        ([{"step": "resize", "size": [0, 64]}], ["size: expected"]),
        ([{"step": "resize", "fit": "inner"}], ['fit: expected "stretch" or "inside"', 'got "inner"']),
        ([{"step": "colour"}], ["'order' is missing"]),
        ([{"step": "scale", "by": 0}], ["by: expected a number above 0"]),
        ([{"step": "normalise", "std": [1, 0, 1]}], ["std holds a zero"]),
        ([{"step": "normalise", "mean": [1, 2]}], ["mean: expected a number, or one for each channel"]),
        ([{"step": "pad", "size": [4, 4], "divisor": 2}], ["a size or a divisor, not both"]),
        ([{"step": "layout"}, {"step": "scale", "by": 2.0}], ["scale comes after layout"]),
        (["resize"], ["preprocess[0]: expected a table"]),
        ({"step": "resize"}, ["expected a list of steps"]),
    ],
)
def test_a_list_that_is_wrong_is_refused_by_name(data: Any, words: list[str]) -> None:
    with pytest.raises(GraphForgeError) as caught:
        steps_of(data)
    for word in words:
        assert word in str(caught.value)


def test_a_file_brings_steps_and_names(tmp_path: Path) -> None:
    (tmp_path / "list.toml").write_text(
        '[[preprocess]]\nstep = "letterbox"\nvalue = 114\n\n[dataset]\nclasses = ["cat", "dog"]\n'
        'keypoints = ["nose", "tail"]\nskeleton = [[0, 1]]\nlink_colours = [[255, 0, 0]]\n'
    )
    steps, dataset = read_preprocess(tmp_path / "list.toml")
    assert steps == (Letterbox(value=114),)
    assert dataset is not None
    assert dataset.classes == ("cat", "dog")
    assert type(dataset).of(dataset.to_dict()) == dataset


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("step = [", "is not TOML"),
        ("[[steps]]\nstep = 'resize'", "unknown key 'steps'"),
        ("", "lists no steps"),
        ("[dataset]\nclases = ['a']", "did you mean 'classes'?"),
        ("[dataset]\nkeypoints = ['a']\nskeleton = [[0, 1]]", "joins a keypoint that is not among the 1 keypoints"),
        ("[dataset]\nclass_colours = [[1, 2, 300]]", "[red, green, blue], each 0 to 255"),
        ("[dataset]\nkeypoints = ['a']\nsigmas = [0.1, 0.2]", "sigmas has 2 entries, expected 1"),
    ],
)
def test_a_file_that_is_wrong_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "list.toml").write_text(text)
    with pytest.raises(GraphForgeError) as caught:
        read_preprocess(tmp_path / "list.toml")
    assert words in str(caught.value)
    assert "list.toml" in str(caught.value)


# -- the list and the input it is for ----------------------------------------------------------------------------------

FIXED = TensorSpec("x", (1, 3, 48, 64), "float32")
DYNAMIC = TensorSpec("x", (1, 3, 64, 64), "float32", {2: DimRange("h", 32, 320, 32), 3: DimRange("w", 32, 320, 32)})


def test_sizes_are_filled_in_and_the_end_is_written_out() -> None:
    steps = completed([Resize(), Normalise(1, 2)], FIXED)
    assert steps == (Resize((64, 48)), Normalise(1, 2), Layout("nchw"), Dtype("float32"))
    check_steps(steps, FIXED)
    array, _ = prepared(steps, _picture(10, 10))
    assert array.shape == (3, 48, 64)
    assert array.dtype == np.float32


def test_a_size_is_asked_for_where_the_input_has_none() -> None:
    with pytest.raises(GraphForgeError, match="letterbox has no size, and input 'x' has no fixed one"):
        completed([Letterbox()], DYNAMIC)
    steps = completed([Resize((320, 320), "inside"), Pad(divisor=32)], DYNAMIC)
    check_steps(steps, DYNAMIC)


@pytest.mark.parametrize(
    "steps", [[Resize((48, 64))], [Resize(), Colour("grey")], [Resize(), Layout("nhwc")], [Resize(), Dtype("uint8")]]
)
def test_a_list_that_does_not_make_what_the_input_takes_is_refused(steps: list[Step]) -> None:
    with pytest.raises(GraphForgeError, match="of a picture, and input 'x' takes 3x48x64 float32"):
        check_steps(completed(steps, FIXED), FIXED)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([Pad((4, 4))], "pad goes up to 4x4, but the picture has 7x5"),
        ([CentreCrop((8, 2))], "centre-crop takes 8x2 out of a picture of 7x5"),
        ([CropBox((4, 4))], r"box \[3.0, 3.0, 3.0, 9.0\] has no area"),
        ([Colour("grey"), Normalise((1, 2, 3))], "normalise has 3 numbers, and there are 1 channels"),
        ([Scale(2.0), Resize((3, 3), filter="antialias-bilinear")], "resize with antialias takes bytes"),
        ([Resize()], "resize has no size"),
        ([Resize((90_000, 90_000))], "resize makes a picture of 90000x90000"),
        ([Resize((9_000, 9_000), "cover")], "resize makes a picture of 12600x9000"),
        ([Pad(divisor=20_000)], "pad makes a picture of 20000x20000"),
        ([Letterbox((50_000, 50_000))], "letterbox makes a picture of 50000x50000"),
    ],
)
def test_a_step_that_cannot_do_its_work_says_so(steps: list[Step], words: str) -> None:
    with pytest.raises(GraphForgeError, match=words):
        prepared(steps, _picture(5, 7), (3, 3, 3, 9))


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(GraphForgeError, match="height x width x 3 bytes"):
        prepared([], np.zeros((4, 4, 3), np.float32))
