"""Diverse models at every opset: legal cells run in ONNX Runtime and equal to eager, illegal ones with their reason.

    scripts/bench matrix [--match TEXT] [--output FILE.json]

Each model is captured once; copies of its canonical form are lowered, checked (onnx.checker in full), run and compared.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from graphforge.opsets.matrix import State
from graphforge.spec import DimRange
from tests.e2e import nets
from tests.e2e.matrix import Entry, Made, Row, run_matrix


def _torchvision(name: str, size: int) -> Callable[[], Made]:
    def make() -> Made:
        from graphforge.frontend.load import load_model

        module = load_model(f"torchvision:{name}").module
        assert module is not None
        return nets.calm(module), (torch.randn(2, 3, size, size),), {}

    return make


def _timm(name: str, size: int) -> Callable[[], Made]:
    def make() -> Made:
        from graphforge.frontend.load import load_model

        module = load_model(f"timm:{name}", kwargs={"img_size": size}).module
        assert module is not None
        return nets.calm(module), (torch.randn(2, 3, size, size),), {}

    return make


def _bert() -> Made:
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    transformers = importlib.import_module("transformers")
    config = transformers.BertConfig(
        hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256, vocab_size=512
    )
    ids, mask = torch.randint(3, 512, (2, 48)), torch.ones(2, 48, dtype=torch.int64)
    mask[1, 40:] = 0
    return nets.calm(transformers.BertModel(config)), (), {"input_ids": ids, "attention_mask": mask}


def _digits() -> Made:
    from scripts.gallery import digits

    model, inputs = digits.detector_batch3()
    return model.eval(), inputs, {}


def _net(make: Callable[[], torch.nn.Module], *shape: int) -> Callable[[], Made]:
    def made() -> Made:
        torch.manual_seed(0)
        return nets.calm(make()), (torch.randn(shape),), {}

    return made


_BATCH = {0: (1, 4)}
_TOKENS = {0: DimRange("batch", 1, 4), 1: DimRange("length", 8, 64)}
MODELS: tuple[Entry, ...] = (
    Entry("CNN: torchvision resnet50", _torchvision("resnet50", 64), {"x": _BATCH}),
    Entry("ViT: timm vit_tiny_patch16_224", _timm("vit_tiny_patch16_224", 64), {"x": _BATCH}),
    Entry("Swin: torchvision swin_t", _torchvision("swin_t", 64), {"x": _BATCH}),
    Entry("digit detector, native NMS", _digits, nms="native"),
    Entry("digit detector, portable NMS", _digits, nms="portable"),
    Entry("digit detector, portable NMS, padded", _digits, nms="portable", outputs="padded"),
    Entry(
        "SRCNN, bicubic x3",
        _net(nets.SRCNN, 1, 3, 24, 16),
        {"image": {0: (1, 4), 2: (8, 32), 3: (8, 32)}},
    ),
    Entry("LSTM, two layers, both directions", _net(nets.SpeechLSTM, 2, 20, 40), {"frames": {0: (1, 4), 1: (4, 40)}}),
    Entry("RTMPose-shaped", _net(nets.RTMPose, 2, 3, 64, 48), {"image": _BATCH}),
    Entry(
        "segmentation with Resize",
        _net(nets.Segmenter, 1, 3, 48, 64),
        {"image": {0: (1, 4), 2: (32, 96), 3: (32, 96)}},
    ),
    Entry("GroupNorm and Mish", _net(nets.GroupNormMish, 2, 3, 32, 32), {"image": _BATCH}),
    Entry("BERT: transformers, 3 layers", _bert, {"input_ids": _TOKENS, "attention_mask": _TOKENS}),
)


def table(rows: list[Row]) -> str:
    """The matrix in Markdown."""
    opsets = [cell.opset for cell in rows[0].cells]
    lines = ["| model | " + " | ".join(map(str, opsets)) + " | max rel |", "|---" * (len(opsets) + 2) + "|"]
    for row in rows:
        worst = max((proof.max_rel for proof in row.proofs if proof.max_rel is not None), default=0.0)
        lines.append(f"| {row.name} | " + " | ".join(row.mark(cell) for cell in row.cells) + f" | {worst:.0e} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--match", default="", help="only models whose name contains this")
    parser.add_argument("--output", default="out/matrix.json", help="where the details go")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for entry in MODELS:
        if options.match.lower() not in entry.name.lower():
            continue
        row = run_matrix(entry)
        rows.append(row)
        print(f"{row.name}: {' '.join(row.mark(cell) for cell in row.cells)} ({row.seconds:.0f} s)", flush=True)
    if not rows:
        parser.error(f"no model's name contains {options.match!r}")
    print(f"\n{table(rows)}\n")
    for row in rows:
        for reason in row.reasons():
            print(reason)
    proofs = [proof for row in rows for proof in row.proofs]
    ran = sum(proof.passed is not None for proof in proofs)
    wrong = sum(proof.passed is False for proof in proofs)
    impossible = sum(cell.state is State.IMPOSSIBLE for row in rows for cell in row.cells)
    print(f"{ran} cells run, {wrong} wrong, {len(proofs) - ran} not run, {impossible} impossible")
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([row.to_dict() for row in rows], indent=2, sort_keys=True) + "\n")
    print(f"written: {output}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
