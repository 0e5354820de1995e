"""`Detector`, `PoseDetector`, `Pipeline` and `PoseTracker` on bundles: boxes and points in the pixels of pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import graphforge
from graphforge.cli.main import run
from graphforge.errors import GraphForgeError, UsageError
from graphforge.runtime import Detections, Detector, Pipeline, PoseDetector, PoseTracker, Resize
from graphforge.runtime.tracker import OneEuro, overlap, similarity
from scripts.gallery.figures import Figure, frame, limbs, picture

ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "scripts" / "gallery"
TWO: list[Figure] = [(70, 80, 1.0), (230, 110, 0.9)]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector and pose estimators of figures, to be read only."""
    folder = tmp_path_factory.mktemp("figures")
    for name, model, more in (
        ("det", "detector", {"preprocess": GALLERY / "figures_detector.toml"}),
        ("pose", "pose", {"preprocess": GALLERY / "figures_pose.toml", "dynamic_shapes": "image:0=1..3"}),
        ("one", "pose", {"preprocess": GALLERY / "figures_pose.toml"}),
        ("bare", "pose", {}),
    ):
        graphforge.compile(f"{GALLERY / 'figures.py'}:{model}", **more, output=folder / name)
    return folder


@pytest.fixture
def two() -> NDArray[np.uint8]:
    return picture(TWO)


def _apart(points: NDArray[Any], figures: list[Figure]) -> float:
    """How far keypoints are from where they are drawn, the furthest."""
    return float(max(min(np.abs(one - limbs(figure)).max() for figure in figures) for one in points))


def test_a_detector_finds_boxes_in_the_pictures_pixels(bundles: Path, two: NDArray[np.uint8]) -> None:
    found = Detector(bundles / "det")(two).above(0.5)
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    np.testing.assert_allclose(middles, np.array([figure[:2] for figure in TWO]), atol=1.5)


def test_a_picture_is_a_file_an_array_or_a_pillow_picture(
    bundles: Path, two: NDArray[np.uint8], tmp_path: Path
) -> None:
    Image.fromarray(two).save(tmp_path / "two.png")
    detector = Detector(bundles / "det")
    first = detector(two)
    for other in (tmp_path / "two.png", str(tmp_path / "two.png"), Image.fromarray(two)):
        np.testing.assert_array_equal(detector(other).boxes, first.boxes)
    blue_first = Detector(bundles / "det", colours="bgr")(two[..., ::-1])
    np.testing.assert_array_equal(blue_first.scores, first.scores)


def test_poses_are_found_in_boxes(bundles: Path, two: NDArray[np.uint8]) -> None:
    boxes = [[208.0, 70.0, 252.0, 150.0], [48.0, 40.0, 92.0, 120.0]]
    found = PoseDetector(bundles / "pose")(two, boxes)
    assert found.keypoints is not None
    assert found.keypoints.shape == (2, 5, 2)
    for points, figure in zip(found.keypoints, reversed(TWO), strict=True):  # in the order of the boxes
        np.testing.assert_allclose(points, limbs(figure), atol=1.5)
    assert len(PoseDetector(bundles / "pose")(two, [])) == 0


def test_crops_go_in_batches_of_what_the_bundle_takes(
    bundles: Path, two: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven boxes at three a run; the bundle of one a run says the same."""
    boxes = [[48.0 + shift, 40.0, 92.0 + shift, 120.0] for shift in range(7)]
    batched = PoseDetector(bundles / "pose")
    counts = []
    whole = batched.run

    def counting(rows: Any) -> Any:
        counts.append(len(rows))
        return whole(rows)

    monkeypatch.setattr(batched, "run", counting)
    found = batched(two, boxes)
    assert counts == [3, 3, 1]
    single = PoseDetector(bundles / "one")(two, boxes)
    assert found.keypoints is not None
    assert single.keypoints is not None
    np.testing.assert_allclose(found.keypoints, single.keypoints, atol=1e-3)


def test_a_pipeline_finds_boxes_then_poses(bundles: Path, two: NDArray[np.uint8]) -> None:
    people = Pipeline(Detector(bundles / "det"), PoseDetector(bundles / "pose"))
    found = people(two)
    assert len(found) == 2
    assert found.keypoints is not None
    assert _apart(found.keypoints, TWO) < 1.5
    assert len(people(np.zeros((60, 100, 3), np.uint8))) == 0
    assert len(Pipeline(people.detector, people.pose, labels=(1,))(two)) == 0
    assert len(Pipeline(people.detector, people.pose, score=0.95)(two)) == 1


@pytest.mark.parametrize("det_interval", [1, 5])
def test_a_tracker_keeps_who_is_who(bundles: Path, det_interval: int) -> None:
    tracker = PoseTracker(Detector(bundles / "det"), PoseDetector(bundles / "pose"), det_interval)
    for number in range(20):
        figures = frame(number)
        found = tracker(picture(figures))
        assert found.ids is not None
        assert found.keypoints is not None
        assert sorted(found.ids) == [1, 2], number
        for who, points in zip(found.ids, found.keypoints, strict=True):
            np.testing.assert_allclose(points, limbs(figures[who - 1]), atol=2.5)
    assert tracker.detections == 20 / det_interval


def test_a_tracker_gives_a_new_number_to_who_comes_and_the_old_one_to_who_comes_back(bundles: Path) -> None:
    first, second = TWO
    tracker = PoseTracker(Detector(bundles / "det"), PoseDetector(bundles / "pose"), 1, max_missing=3)

    def ids(figures: list[Figure]) -> list[int]:
        found = tracker(picture(figures))
        assert found.ids is not None
        return sorted(found.ids.tolist())

    assert ids([first]) == [1]
    assert ids([first, second]) == [1, 2]
    assert [ids([first]) for _ in range(3)] == [[1]] * 3
    assert ids([first, second]) == [1, 2]  # it was away for 3 frames
    assert [ids([first]) for _ in range(4)] == [[1]] * 4
    assert ids([first, second]) == [1, 3]  # and now for 4


def test_a_tracker_looks_again_once_nobody_is_left(bundles: Path) -> None:
    tracker = PoseTracker(Detector(bundles / "det"), PoseDetector(bundles / "pose"), 100)
    assert len(tracker(picture([]))) == 0
    assert len(tracker(picture(TWO))) == 2
    assert tracker.detections == 2


def test_smoothing_stills_what_shakes_and_follows_what_moves() -> None:
    random = np.random.default_rng(0)
    shaking = random.normal(0, 0.2, (60, 1, 2)) + 50
    smoother = OneEuro(least_cutoff=0.05)
    still = np.array([smoother(points) for points in shaking])
    assert still[10:].std() < 0.5 * shaking[10:].std()
    smoother = OneEuro()
    moving = np.arange(60.0).reshape(60, 1, 1) * 20 + np.zeros((1, 1, 2))
    followed = np.array([smoother(points) for points in moving])
    assert np.abs(followed - moving)[5:].max() < 3


def test_a_pose_that_is_nan_is_nobodys(bundles: Path) -> None:
    """It is not taken for a track, and the track's smoothing goes on from where it was."""
    tracker = PoseTracker(Detector(bundles / "det"), PoseDetector(bundles / "pose"), 1)
    first = tracker(picture(TWO))
    assert first.keypoints is not None
    broken = Detections(
        np.full((1, 4), np.nan),
        np.ones(1),
        np.zeros(1, np.int64),
        np.full((1, 5, 2), np.nan),
        keypoint_scores=np.ones((1, 5)),
    )
    numbered = tracker._numbered(broken)
    assert numbered.ids is not None
    assert numbered.ids.tolist() == [3]
    again = tracker(picture(TWO))
    assert again.ids is not None
    assert sorted(again.ids) == [1, 2]
    assert again.keypoints is not None
    assert np.isfinite(again.keypoints).all()


def test_likeness_of_poses_is_cocos() -> None:
    """exp(-d^2 / (2 s^2 k^2)) with k twice the sigma and s^2 the area, as pycocotools has it."""
    one = np.array([[[0.0, 0.0], [10.0, 0.0]]])
    other = np.array([[[3.0, 4.0], [10.0, 0.0]]])
    found = similarity(one, other, np.array([0.1, 0.1]), np.array([400.0]))
    assert found[0, 0] == pytest.approx((np.exp(-25 / (2 * 0.2**2 * 400)) + 1) / 2)
    boxes = np.array([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    np.testing.assert_allclose(overlap(boxes, boxes[:1] + np.array([5.0, 0.0, 5.0, 0.0])), np.array([[1 / 3], [0]]))


# -- what cannot be done -----------------------------------------------------------------------------------------------


def test_a_bundle_that_does_not_say_what_becomes_of_a_picture_is_refused(bundles: Path, two: NDArray[np.uint8]) -> None:
    with pytest.raises(GraphForgeError, match="does not say what becomes of a picture"):
        PoseDetector(bundles / "bare")
    given = PoseDetector(bundles / "bare", preprocess=GALLERY / "figures_pose.toml")
    assert len(given(two)) == 1
    with pytest.raises(GraphForgeError, match="makes 3x8x8 float32 of a picture"):
        PoseDetector(bundles / "bare", preprocess=[Resize((8, 8))])


def test_models_that_are_not_what_they_are_taken_for_are_refused(bundles: Path, two: NDArray[np.uint8]) -> None:
    with pytest.raises(GraphForgeError, match="does not look at boxes"):
        PoseDetector(bundles / "det")(two, [[0, 0, 4, 4]])
    with pytest.raises(GraphForgeError, match="does not give one pose for each box"):
        PoseDetector(bundles / "det")(two)
    with pytest.raises(GraphForgeError, match="has no area"):
        PoseDetector(bundles / "pose")(two, [[9, 9, 9, 9]])


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "a picture is height x width x 3 bytes"),
        (np.zeros((4, 4, 4), np.uint8), "a picture is height x width x 3 bytes"),
        ("nowhere.png", "'nowhere.png' cannot be read"),
        (3, "and this is int"),
    ],
)
def test_what_is_no_picture_is_refused(bundles: Path, what: Any, words: str) -> None:
    with pytest.raises(GraphForgeError, match=words):
        Detector(bundles / "det")(what)


def test_options_that_cannot_be_meant_are_refused(bundles: Path) -> None:
    with pytest.raises(UsageError, match='expected "rgb" or "bgr"'):
        Detector(bundles / "det", colours="hsv")
    with pytest.raises(UsageError, match="det_interval"):
        PoseTracker(Detector(bundles / "det"), PoseDetector(bundles / "pose"), 0)
    with pytest.raises(GraphForgeError, match="is not a bundle"):
        Detector(bundles)


# -- without the rest --------------------------------------------------------------------------------------------------

ALONE = """
import sys
from graphforge.runtime import Detector, PoseDetector, Pipeline, PoseTracker, drawn
det, pose, photo, drawing = sys.argv[1:]
detector, poses = Detector(det), PoseDetector(pose)
found = Pipeline(detector, poses)(photo)
PoseTracker(detector, poses)(photo)
from PIL import Image
drawn(Image.open(photo), found, detector.dataset.classes, poses.dataset).save(drawing)
others = {name.partition(".")[0] for name in sys.modules} & {"torch", "onnx", "onnx_ir", "rich", "click", "polygraphy"}
assert not others, others
print(found.keypoints.round(3).tolist())
"""


def test_numpy_pillow_and_onnxruntime_are_enough(bundles: Path, two: NDArray[np.uint8], tmp_path: Path) -> None:
    """A Python that sees these three and graphforge, and nothing else of this environment."""
    import onnxruntime
    import PIL

    site = tmp_path / "site"
    site.mkdir()
    for package in (np, PIL, onnxruntime):
        home = Path(str(package.__file__)).parent
        for one in (home, home.with_name(f"{home.name}.libs")):  # the wheels' own shared libraries
            if one.exists():
                (site / one.name).symlink_to(one)
    pillow_libraries = Path(str(PIL.__file__)).parent.with_name("pillow.libs")
    if pillow_libraries.exists():
        (site / "pillow.libs").symlink_to(pillow_libraries)
    (site / "graphforge").symlink_to(ROOT / "graphforge")
    Image.fromarray(two).save(tmp_path / "two.png")
    environment = {"PYTHONPATH": str(site), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-S", "-c", ALONE, str(bundles / "det"), str(bundles / "pose")]
    command += [str(tmp_path / "two.png"), str(tmp_path / "seen.png")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    people = Pipeline(Detector(bundles / "det"), PoseDetector(bundles / "pose"))(two)
    assert people.keypoints is not None
    np.testing.assert_allclose(json.loads(done.stdout), people.keypoints, atol=0.01)
    assert Image.open(tmp_path / "seen.png").size == (640, 384)


# -- the verb ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "frames").mkdir()
    for number in range(4):
        Image.fromarray(picture(frame(number, 4))).save(tmp_path / "frames" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _pipeline(bundles: Path, *arguments: str) -> list[str]:
    return ["pipeline", str(bundles / "det"), str(bundles / "pose"), *arguments]


def test_a_folder_is_drawn_into_a_folder(bundles: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_pipeline(bundles, "frames", "--draw", "seen", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert [len(one["poses"]) for one in document["frames"]] == [2] * 4
    assert sorted(path.name for path in (folder / "seen").iterdir()) == [f"{number}.png" for number in range(4)]
    assert document["frames"][0]["poses"][0]["name"] == "figure"
    orange = (np.asarray(Image.open(folder / "seen" / "0.png")).reshape(-1, 3) == [255, 128, 0]).all(1)
    assert orange.sum() > 10  # the line between the feet


def test_one_picture_is_printed(bundles: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_pipeline(bundles, "frames/0.png", "--draw", "seen.png")) == 0
    assert "1 frame, 2 poses" in capsys.readouterr().out
    assert Image.open("seen.png").size == (640, 384)


def _write_video(path: Path, count: int) -> None:
    from graphforge.runtime.video import VideoWriter

    with VideoWriter(path, 30.0) as writer:
        for number in range(count):
            writer.write(picture(frame(number, count)))


def test_a_video_is_followed_and_drawn(bundles: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2", reason="reads videos")
    from graphforge.runtime.video import frames_of

    _write_video(folder / "walk.mp4", 12)
    assert run(_pipeline(bundles, "walk.mp4", "--draw", "seen.mp4", "--det-interval", "4", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["detected_on"] == 3
    assert [[pose["id"] for pose in one["poses"]] for one in document["frames"]] == [[1, 2]] * 12
    drawn = list(frames_of(folder / "seen.mp4"))
    assert len(drawn) == 12
    assert drawn[0].pixels.shape == (384, 640, 3)


def test_a_video_cut_short_keeps_what_was_done(bundles: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2", reason="reads videos")
    from graphforge.runtime.video import frames_of

    _write_video(folder / "walk.avi", 12)
    whole = (folder / "walk.avi").read_bytes()
    (folder / "cut.avi").write_bytes(whole[: len(whole) // 2])
    assert run(_pipeline(bundles, "cut.avi", "--draw", "seen.avi", "--json")) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    done = len(document["frames"])
    assert 2 <= done < 12
    assert f"is cut short: it says 12 frames, and {done} can be read" in document["failure"]
    assert "is cut short" in captured.err
    assert len(list(frames_of(folder / "seen.avi"))) == done
    (folder / "cut.mp4").write_bytes(whole[:20])
    assert run(_pipeline(bundles, "cut.mp4")) == 1
    assert "video 'cut.mp4' cannot be opened" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "'nowhere' does not exist"),
        (["empty"], "'empty' contains no pictures"),
        (["notes.txt"], "'notes.txt' is not a picture or a video"),
        (["broken.png"], "picture 'broken.png' cannot be read"),
        (["frames", "--draw", "frames"], "is the folder that the pictures are in"),
        (["frames/0.png", "--draw", "seen.gif"], "unknown kind of picture"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(
    arguments: list[str], words: str, bundles: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("milk")
    (folder / "broken.png").write_text("not a picture")
    assert run(_pipeline(bundles, *arguments)) in (1, 2)
    assert words in " ".join(capsys.readouterr().err.split())


def test_two_stages_the_wrong_way_round_are_told(
    bundles: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pipeline", str(bundles / "pose"), str(bundles / "det"), "frames/0.png"]) == 1
    assert "does not look at boxes" in capsys.readouterr().err


def test_detections_are_chosen_with_all_that_belongs_to_them() -> None:
    every = Detections(
        np.arange(8.0).reshape(2, 4),
        np.array([0.1, 0.9]),
        np.array([3, 4]),
        ids=np.array([7, 8]),
        masks=np.zeros((2, 1, 1)),
    )
    (one,) = every.above(0.5).to_list(["a"] * 5)
    assert one == {"label": 4, "name": "a", "score": 0.9, "box": [4.0, 5.0, 6.0, 7.0], "id": 8}
