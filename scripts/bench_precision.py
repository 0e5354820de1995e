"""Accuracy, size and time of reduced precision on trained models, beside ONNX Runtime's own quantizer.

    scripts/bench precision
    scripts/bench precision --match digits --canvases 120
    scripts/bench precision --match CNN --files "int8;NNCF;modelopt"
    scripts/bench precision --zoo                # float16 and bfloat16 of many models, see precision_zoo.py
    scripts/bench precision --zoo --match timm/  # those only; rows of earlier runs are kept, --fresh measures again
    scripts/bench precision --zoo --table        # only the table of what was measured

The digit detector of the gallery (COCO's mAP on canvases that nobody trained on), a small CNN and a small ViT trained
here on scikit-learn's digits (top-1 of the test half), and MTCNN's O-Net where facenet-pytorch is installed (distance
of its landmarks from float32's, in pixels of 48), and nano-OCR where that is installed (characters of rendered words
that are read, in per cent).  Beside ONNX Runtime's quantizer stand NNCF and NVIDIA's modelopt where they are installed;
neither belongs into this environment, whose versions their pins contradict.  Calibration is on training data.  Times
are CPU times of one thread, the files run in turn, as a share of the float32 file's.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import nn

import graphforge
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from scripts import precision_zoo
from scripts.gallery import digits

__all__ = ["Case", "cases", "main"]

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True, slots=True)
class Case:
    """A trained model with its data.

    Attributes:
        name: of the row.
        module: the model.
        name_of_input: what its only input is called.
        calibration: samples of it.
        inputs: on which time is measured.
        metric: how good a model is, larger is better.
        unit: what the metric is.
        bound: what it may lose.
    """

    name: str
    module: nn.Module
    name_of_input: str
    calibration: Array
    inputs: Sequence[Array]
    metric: Callable[[Run], float]
    unit: str
    bound: float = 0.5


def cases(canvases: int) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Name and maker of each."""
    yield "digits detector", lambda: _detector(canvases)
    yield "digits CNN", lambda: _classifier("digits CNN", _Cnn)
    yield "digits ViT", lambda: _classifier("digits ViT", _Vit)
    yield "O-Net landmarks", _landmarks
    yield "nano-OCR", _reader


def _detector(count: int) -> Case:
    from graphforge.runtime.detections import detections_of
    from scripts.gallery.evaluate_digits import average_precision

    pages = digits.canvases(count)
    images = [digits.stacked([page]).numpy() for page in pages]

    def metric(run: Run) -> float:
        found = []
        for image in images:
            detections = detections_of(run({"images": image}))
            assert detections is not None
            found.append((detections[0].boxes, detections[0].scores, detections[0].labels))
        return 100 * average_precision(found, pages)[0]

    calibration = digits.stacked(digits.canvases(24, train=True)).numpy()
    return Case("digits detector", digits.trained(), "images", calibration, images, metric, "mAP")


class _Cnn(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(64 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.features(x).flatten(1))
        return out


class _Vit(nn.Module):
    """Patches of 2x2, three layers of attention."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        layers = [nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True) for _ in range(3)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.layers(self.patches(x).flatten(2).transpose(1, 2) + self.places).mean(1))
        return out


def _classifier(name: str, make: Callable[[], nn.Module]) -> Case:
    from sklearn.datasets import load_digits

    pictures, labels = load_digits(return_X_y=True)
    x = (pictures.reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    x, labels = x[order], labels[order]
    half = len(x) // 2
    torch.manual_seed(0)
    module = make()
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
    module.train()
    for step in range(400):
        some = torch.randint(0, half, (64,), generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(
            module(torch.from_numpy(x[:half])[some]), torch.from_numpy(labels[:half])[some]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tested, right = x[half:], labels[half:]
    batches = [tested[first : first + 64] for first in range(0, len(tested) - 63, 64)]

    def metric(run: Run) -> float:
        found = np.concatenate([next(iter(run({"x": batch}).values())).argmax(1) for batch in batches])
        return 100 * float((found == right[: len(found)]).mean())

    return Case(name, module.eval(), "x", x[:256], batches, metric, "top-1")


def _landmarks() -> Case:
    from scripts.gallery import mtcnn

    detector = mtcnn._detector()
    net = detector.onet.eval()
    picture = torch.from_numpy(mtcnn.astronaut()).permute(2, 0, 1)[None].float()
    generator = np.random.default_rng(0)
    crops = []
    for _ in range(96):
        side = int(generator.integers(60, 220))
        top, left = (int(generator.integers(0, size - side)) for size in picture.shape[2:])
        crop = picture[:, :, top : top + side, left : left + side]
        crops.append(((nn.functional.interpolate(crop, (48, 48), mode="area") - 127.5) / 128).numpy())
    with torch.no_grad():
        right = [net(torch.from_numpy(crop))[1].numpy() for crop in crops[64:]]

    def metric(run: Run) -> float:
        apart = []
        for crop, points in zip(crops[64:], right, strict=True):
            outputs = list(run({"x": crop}).values())
            apart.append(np.abs(outputs[1] - points).mean() * 48)
        return -float(np.mean(apart))

    return Case("O-Net landmarks", net, "x", np.concatenate(crops[:64]), crops[64:], metric, "-px of 48", 0.2)


_WORDS = (
    "hello world graph forge model table water green yellow window number people letter figure street music paper "
    "stone river cloud Monday Friday Apple Orange 12345 67890 2024 room.12 A-17 north south"
).split()


def _reader() -> Case:
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    from nano_ocr.ocr import NanoOCR  # type: ignore[import-not-found]
    from PIL import Image, ImageDraw, ImageFont

    reader = NanoOCR(device="cpu")
    pictures = []
    for number, word in enumerate(_WORDS * 2):
        font = ImageFont.load_default(24 + number % 5)
        page = Image.new("L", (int(font.getlength(word)) + 12 + number % 7, 40), 255 - 8 * (number % 4))
        ImageDraw.Draw(page).text((6, 4), word, fill=number % 6 * 10, font=font)
        pictures.append(reader.transform(page).unsqueeze(0).numpy())
    count = len(_WORDS)

    def metric(run: Run) -> float:
        right = 0.0
        for picture, word in zip(pictures[count:], _WORDS, strict=True):
            tokens = next(iter(run({"x": picture}).values())).argmax(-1)[:, 0]
            text = [
                reader.idx2char.get(int(t), "") for i, t in enumerate(tokens) if t and (not i or t != tokens[i - 1])
            ]
            right += _alike("".join(text), word) / len(word)
        return 100 * right / count

    return Case(
        "nano-OCR", reader.model, "x", np.concatenate(pictures[:count]), pictures[count:], metric, "% of characters"
    )


def _alike(one: str, other: str) -> int:
    """The length of the longest text that both become by leaving out characters."""
    row = [0] * (len(other) + 1)
    for a in one:
        last = 0
        for place, b in enumerate(other):
            last, row[place + 1] = row[place + 1], last + 1 if a == b else max(row[place], row[place + 1])
    return row[-1]


def _files(case: Case, folder: Path, labels: Sequence[str]) -> Iterator[tuple[str, Path, str]]:
    """What is compared: label, file and a remark."""
    example = (torch.from_numpy(case.inputs[0]),)
    calibration = {case.name_of_input: case.calibration}

    def compiled(label: str, **asked: Any) -> tuple[str, Path, str]:
        into = folder / label.replace(" ", "_")
        bundle = graphforge.compile(case.module, example, output=into, accept_undecided=True, **asked)
        told = [note for note in bundle.manifest["notes"] if "compute in" in note or note.endswith("<- chosen")]
        return label, into / "model.onnx", told[0].partition(": ")[2] if told else ""

    yield compiled("float32")
    if "fp16" in labels:
        yield compiled("fp16", precision="fp16", calibration=calibration)
    if "int8" in labels:
        yield compiled("int8", precision="int8", calibration=calibration)
    within = {"max_drop": case.bound, "metric": case.metric}
    if "int8 within" in labels:
        yield compiled(f"int8 within {case.bound}", precision="int8", calibration=calibration, **within)
    if "auto" in labels:
        yield compiled("auto", precision="auto", calibration=calibration, **within)
    for label, engine in _ENGINES.items():
        if label not in labels:
            continue
        file = folder / f"{label.replace(' ', '_')}.onnx"
        try:
            source = folder / "float32" / "model.onnx"
            if label in ("NNCF", "modelopt"):  # what they write above opset 17 does not always load
                compiled("opset 17", opset=17)
                source = folder / "opset_17" / "model.onnx"
            engine(source, file, case)
            assert OnnxRuntimeRunner(file, threads=1).session
        except Exception as error:  # what it raises is part of the comparison
            told = " ".join(str(error).split())[:150]
            print(f"{case.name}: {label} failed: {type(error).__name__}: {told}", file=sys.stderr)
            continue
        yield label, file, ""


def _quantised_by_nncf(source: Path, file: Path, case: Case) -> None:
    import nncf  # type: ignore[import-not-found]
    import onnx

    batches = _batches(case)
    dataset = nncf.Dataset(batches, lambda batch: {case.name_of_input: batch})
    onnx.save(nncf.quantize(onnx.load(source), dataset, subset_size=len(batches)), file)


def _quantised_by_modelopt(source: Path, file: Path, case: Case) -> None:
    from modelopt.onnx.quantization import quantize  # type: ignore[import-not-found]

    size = case.inputs[0].shape[0]
    data = {case.name_of_input: case.calibration[: len(case.calibration) // size * size]}
    quantize(
        str(source),
        quantize_mode="int8",
        calibration_data=data,
        calibration_method="entropy",
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",  # its default is float16, which this processor has no kernels for
        output_path=str(file),
    )


def _batches(case: Case) -> list[Array]:
    size = case.inputs[0].shape[0]
    return [case.calibration[at : at + size] for at in range(0, len(case.calibration) - size + 1, size)]


def _quantised_by_onnxruntime(source: Path, file: Path, case: Case, **settings: Any) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    feeds = iter([{case.name_of_input: batch} for batch in _batches(case)])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            return next(feeds, None)

    prepared = file.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(prepared, file, Reader(), quant_format=QuantFormat.QDQ, **types, **settings)


_ENGINES: dict[str, Callable[[Path, Path, Case], None]] = {
    "ORT int8": _quantised_by_onnxruntime,
    "ORT int8, per channel": functools.partial(_quantised_by_onnxruntime, per_channel=True),
    "NNCF": _quantised_by_nncf,
    "modelopt": _quantised_by_modelopt,
}
_OURS = ("float32", "fp16", "int8", "int8 within", "auto")


def _weights(file: Path) -> int:
    """Bytes of its constants: the rest of a small file is names and origins."""
    import onnx

    return sum(len(tensor.raw_data) for tensor in onnx.load(file).graph.initializer)


def _shares(files: Sequence[Path], case: Case, rounds: int = 9) -> list[float]:
    """CPU time of each file as a share of the first one's, run in turn: the least of some rounds of each."""
    runners = [OnnxRuntimeRunner(file, threads=1) for file in files]
    spent = [float("inf")] * len(runners)
    inputs = case.inputs[: max(1, 200 // case.inputs[0].shape[0])]
    for turn in range(rounds + 1):
        for place, runner in enumerate(runners):
            start = time.process_time()
            for array in inputs[:20]:
                runner.session.run(None, {case.name_of_input: array})
            if turn:
                spent[place] = min(spent[place], time.process_time() - start)
    return [seconds / spent[0] for seconds in spent]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--match", default="", help="only cases whose name has this in it")
    parser.add_argument(
        "--files",
        default=";".join((*_OURS, *_ENGINES)),
        help="which of these to compare with float32, semicolons between",
    )
    parser.add_argument("--canvases", type=int, default=120, help="of the digit detector")
    parser.add_argument("--zoo", action="store_true", help="float16 and bfloat16 of the zoo, the gallery and others")
    parser.add_argument("--table", action="store_true", help="only the table of what --zoo measured before")
    parser.add_argument("--fresh", action="store_true", help="measure again what --zoo measured before")
    parser.add_argument("--seconds", type=float, default=1800.0, help="that a model of --zoo may take")
    parser.add_argument("--worker", nargs=2, metavar=("MODEL", "OUT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        precision_zoo.worker(asked.worker[0], Path(asked.worker[1]))
        return 0
    if asked.zoo:
        return precision_zoo.run(asked.match, table=asked.table, fresh=asked.fresh, seconds=asked.seconds)
    torch.set_num_threads(1)
    print("| model | file | metric | size | of weights | time | |\n|---|---|---|---|---|---|---|")
    for name, make in cases(asked.canvases):
        if asked.match not in name:
            continue
        try:
            case = make()
        except ImportError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            found = list(_files(case, Path(scratch), asked.files.split(";")))
            shares = _shares([file for _, file, _ in found], case)
            whole = found[0][1].stat().st_size
            for (label, file, told), share in zip(found, shares, strict=True):
                with OnnxRuntimeRunner(file, threads=1) as runner:
                    score = case.metric(runner.run)
                size = file.stat().st_size / whole
                weights = _weights(file) / _weights(found[0][1])
                told_score = f"{score:.3f} {case.unit}"
                print(
                    f"| {name} | {label} | {told_score} | {size:.2f} | {weights:.2f} | {share:.2f} | {told} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
