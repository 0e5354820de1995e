"""Train the digit detector on scikit-learn's digits: three to four minutes on one core, seeded, writes `digits.pth`.

    .venv/bin/python scripts/gallery/train_digits.py

Cells near a digit's centre learn its class and box.  The class target is the overlap their box has reached by then, so
that the score tells how well the box fits (quality focal loss, Li et al. 2020); the boxes learn by generalised IoU
(Rezatofighi et al. 2019).  The weights kept are a running mean of the last steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.gallery.digits import CANVAS, CHECKPOINT, Canvas, DigitDetector, canvases, stacked, trained
from scripts.gallery.evaluate_digits import evaluate_eager

_CENTRE = 0.3  # a cell is a digit's when it lies within this share of its box around the middle
_MEAN_OVER = 0.99


def main() -> None:
    """Train, write the checkpoint, tell the mAP on canvases of digits that were held out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)  # of one, the result repeats itself
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    model = train(options.steps, options.batch, options.seed)
    torch.save(model.state_dict(), CHECKPOINT)
    size = CHECKPOINT.stat().st_size
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"trained in {time.perf_counter() - start:.0f} s; {parameters:,} parameters, {size / 1e6:.2f} MB: {CHECKPOINT}"
    )
    print(evaluate_eager(trained(), 500).describe("eager, 500 canvases of held-out digits"))


def train(steps: int, batch: int, seed: int) -> DigitDetector:
    """A trained detector; every step sees canvases that were not seen before."""
    torch.manual_seed(seed)
    model = DigitDetector()
    for parameter in model.parameters():  # channels last: a quarter faster here
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    mean = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(_MEAN_OVER), use_buffers=True
    )
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.15)
    start = time.perf_counter()
    for step in range(steps):
        pages = canvases(batch, train=True, first=step * batch)
        logits, boxes = model.candidates(stacked(pages).contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits, boxes, pages, model.grid)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        mean.update_parameters(model)
        if step % 50 == 0 or step + 1 == steps:
            print(f"step {step:4d}  loss {loss.item():.4f}  {time.perf_counter() - start:4.0f} s", flush=True)
    kept = DigitDetector()
    kept.load_state_dict(mean.module.state_dict())  # copied into tensors of the usual layout
    return kept.eval()


def loss_of(logits: Tensor, boxes: Tensor, pages: list[Canvas], grid: Tensor) -> Tensor:
    """Quality focal loss of the classes and generalised IoU loss of the boxes, per digit's cell."""
    owners = [_owner_of_cells(page, grid) for page in pages]
    image, cell = torch.nonzero(torch.stack(owners) >= 0, as_tuple=True)
    wanted_boxes = torch.stack(
        [pages[i].boxes[owners[i][c]] for i, c in zip(image.tolist(), cell.tolist(), strict=True)]
    )
    wanted_labels = torch.stack(
        [pages[i].labels[owners[i][c]] for i, c in zip(image.tolist(), cell.tolist(), strict=True)]
    )
    overlap, generalised = _overlaps(boxes[image, cell], wanted_boxes)
    target = torch.zeros_like(logits)
    target[image, cell, wanted_labels] = overlap.detach().clamp(min=0.05)
    weight = (target - logits.detach().sigmoid()).abs().square()
    class_loss = functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    return (class_loss + 2 * (1 - generalised).sum()) / len(image)


def _owner_of_cells(page: Canvas, grid: Tensor) -> Tensor:
    """For each cell the digit it belongs to, -1 for none; a digit always has the cell nearest to its centre."""
    middle = (page.boxes[:, :2] + page.boxes[:, 2:]) / 2
    reach = (page.boxes[:, 2:] - page.boxes[:, :2]) * _CENTRE
    away = (grid[:, None] - middle).abs()
    inside = (away <= reach).all(dim=2)
    inside[away.amax(dim=2).argmin(dim=0), torch.arange(len(middle))] = True
    distance = torch.where(inside, (away / reach).square().sum(dim=2), torch.inf)
    nearest, owner = distance.min(dim=1)
    return torch.where(nearest.isinf(), -1, owner)


def _overlaps(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes pair by pair."""
    low, high = torch.maximum(one[:, :2], other[:, :2]), torch.minimum(one[:, 2:], other[:, 2:])
    both = (high - low).clamp(min=0).prod(dim=1)
    union = _area(one) + _area(other) - both
    overlap = both / union
    hull = torch.cat([torch.minimum(one[:, :2], other[:, :2]), torch.maximum(one[:, 2:], other[:, 2:])], dim=1)
    return overlap, overlap - (_area(hull) - union) / _area(hull)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0, max=CANVAS).prod(dim=1)


if __name__ == "__main__":
    main()
