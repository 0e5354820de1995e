#!/usr/bin/env python3
"""Run the built MagicMind model on the stored reference inputs and compare with the stored outputs.

    python3 run_mm.py [--model model.magicmind] [--device 0]

Needs Python 3.7 or newer, numpy and MagicMind.  Exit code 0 when every output agrees, 1 otherwise.
"""
# ruff: noqa: B905
# mypy: ignore-errors

import argparse
import json
import os
import sys

import magicmind.python.runtime as mm
import numpy as np
from magicmind.python.common.types import get_numpy_dtype_by_datatype

HERE = os.path.dirname(os.path.abspath(__file__))


class RunError(Exception):
    """Something failed; the text says what."""


def check(status, what):
    """Every Status that MagicMind returns goes through here."""
    if not status.ok():
        raise RunError(f"{what} failed: {status}")


def check_made(thing, what):
    """What MagicMind creates is None when it could not be created."""
    if thing is None:
        raise RunError("MagicMind could not create " + what)
    return thing


def settle(result, what):
    """For calls of which it is not public whether they return a Status: checked when they do."""
    if hasattr(result, "ok"):
        check(result, what)


def in_bundle(name):
    return os.path.join(HERE, *name.split("/"))


def fitted(array, dtype, name):
    """The array in the dtype the model takes; integers must keep their values."""
    result = np.ascontiguousarray(array.astype(dtype))
    if array.dtype.kind in "iu" and not np.array_equal(result.astype(array.dtype), array):
        raise RunError(f"the values of input {name} do not fit {np.dtype(dtype)}")
    return result


def distance(found, expected):
    """Relative L2 distance; infinite where shapes or the places of NaN and Inf differ."""
    if found.shape != expected.shape:
        return float("inf")
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(expected)
    same_kind = np.array_equal(np.isnan(found), np.isnan(expected)) and np.array_equal(
        np.isinf(found), np.isinf(expected)
    )
    if not same_kind or not np.array_equal(found[np.isinf(found)], expected[np.isinf(expected)]):
        return float("inf")
    difference = np.linalg.norm((found - expected)[finite])
    return float(difference / max(np.linalg.norm(expected[finite]), 1e-12))


def run_case(case, bundle, dtypes, context, device, queue):
    """One feed through the model; inputs and outputs are bound by position."""
    inputs = context.create_inputs()
    if len(inputs) != len(bundle["inputs"]):
        raise RunError("the model has {} inputs, the bundle {}".format(len(inputs), len(bundle["inputs"])))
    for index, name in enumerate(case["inputs"]):
        array = np.load(in_bundle(name))
        dtype = get_numpy_dtype_by_datatype(dtypes[index])
        settle(inputs[index].from_numpy(fitted(array, dtype, bundle["inputs"][index]["name"])), "filling " + name)
        settle(inputs[index].to(device), "copying to the device " + name)
    outputs = []  # MagicMind allocates them: with dynamic dims only it knows their sizes
    check(context.enqueue(inputs, outputs, queue), "running the model")
    check(queue.sync(), "waiting for the device")
    if len(outputs) != len(bundle["outputs"]):
        raise RunError("the model has {} outputs, the bundle {}".format(len(outputs), len(bundle["outputs"])))
    return [output.asnumpy() for output in outputs]


# Boxes that score less are not looked for; half of the best score where nothing scores more.
SCORE = 0.3


def detections(group, arrays):
    """(boxes [K, 4], scores [K], labels [K]) of every image."""
    if "dets" in group:
        boxes, scores = arrays[group["dets"]][..., :4], arrays[group["dets"]][..., 4]
    else:
        boxes, scores = arrays[group["boxes"]], arrays[group["scores"]]
    labels = arrays[group["labels"]] if "labels" in group else np.zeros(scores.shape, np.int64)
    if boxes.ndim == 2:
        boxes, scores, labels = boxes[None], scores[None], labels[None]
    counts = np.reshape(arrays[group["count"]], -1) if "count" in group else [scores.shape[1]] * len(scores)
    images = []
    for image in range(len(scores)):
        kept = np.arange(scores.shape[1]) < counts[image]
        kept &= (labels[image] >= 0) & np.isfinite(scores[image]) & np.isfinite(boxes[image]).all(axis=-1)
        order = np.argsort(-scores[image][kept], kind="stable")
        images.append([part[image][kept][order].astype(np.float64) for part in (boxes, scores, labels)])
    return images


def overlap(box, boxes):
    """Intersection over union of one box with others, xyxy."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - common
    return common / np.maximum(area, 1e-12)


def unmatched(ours, theirs, threshold, limits):
    """How many of ours score enough, and how many of these have no partner of the same label among theirs."""
    free = np.ones(len(theirs[1]), bool)
    wanted, missing = 0, 0
    for box, score, label in zip(*ours):
        if score < threshold:
            break
        wanted += 1
        fits = free & (theirs[2] == label) & (np.abs(theirs[1] - score) <= limits["score"])
        shares = np.where(fits, overlap(box, theirs[0]), -1.0) if len(fits) else np.zeros(0)
        if len(shares) and shares.max() >= limits["overlap"]:
            free[shares.argmax()] = False
        else:
            missing += 1
    return wanted, missing


def compare_detections(case_number, group, expected, found, limits):
    agree = True
    images = zip(detections(group, expected), detections(group, found))
    for image, (theirs, mine) in enumerate(images):
        best = float(theirs[1].max()) if len(theirs[1]) else 0.0
        threshold = min(SCORE, best / 2) if best > 0 else SCORE
        wanted, missing = unmatched(theirs, mine, threshold, limits)
        # one that only just scores enough may be below the threshold in the reference
        _, surplus = unmatched(mine, theirs, threshold + limits["score"], limits)
        allowed = int(limits["share"] * wanted)
        fine = missing + surplus <= allowed
        agree = agree and fine
        print(
            "case {} image {}: {} detections above {:.2f}, {} missing, {} too many, {} allowed {}".format(
                case_number, image, wanted, threshold, missing, surplus, allowed, "ok" if fine else "DIFFERS"
            )
        )
    return agree


def compare(case_number, case, found, bundle):
    agree = True
    known = bundle["reference"].get("detections")
    judged = set()
    if known is not None:
        expected = [np.load(in_bundle(name)) for name in case["outputs"]]
        for group in known["groups"]:
            agree = compare_detections(case_number, group, expected, found, known) and agree
            judged.update(index for key, index in group.items() if key != "rows")
            judged.update(group["rows"])
    for index, name in enumerate(case["outputs"]):
        if index in judged:
            if known is not None and any(index in group["rows"] for group in known["groups"]):
                print(f"case {case_number} output {index}: follows the detections, not compared by itself")
            continue
        expected = np.load(in_bundle(name))
        exact = expected.dtype.kind not in "f"
        limit = 0.0 if exact else bundle["reference"]["tolerance"]
        far = distance(found[index], expected)
        agree = agree and far <= limit
        print(
            "case {} output {} ({}): shape {} distance {:.3e} limit {:.3e} {}".format(
                case_number,
                index,
                bundle["outputs"][index]["name"],
                list(found[index].shape),
                far,
                limit,
                "ok" if far <= limit else "DIFFERS",
            )
        )
    return agree


def run(model_file, device_id):
    with open(in_bundle("bundle.json"), encoding="utf-8") as file:
        bundle = json.load(file)
    model = mm.Model()
    check(model.deserialize_from_file(model_file), "loading " + model_file)
    with mm.System() as system:
        if not 0 <= device_id < system.device_count():
            raise RunError(f"device {device_id} does not exist, this machine has {system.device_count()}")
        device = mm.Device()
        device.id = device_id
        check(device.active(), f"activating device {device_id}")
        engine_config = mm.Model.EngineConfig()
        engine_config.device_type = "MLU"
        engine = check_made(model.create_i_engine(engine_config), "an engine")
        context = check_made(engine.create_i_context(), "a context")
        queue = check_made(device.create_queue(), "a queue")
        dtypes = model.get_input_data_types()
        agree = True
        for number, case in enumerate(bundle["reference"]["cases"]):
            found = run_case(case, bundle, dtypes, context, device, queue)
            agree = compare(number, case, found, bundle) and agree
    return agree


def main():
    parser = argparse.ArgumentParser(description="Run the built model and compare with the stored outputs.")
    parser.add_argument("--model", default=in_bundle("model.magicmind"), help="file that build_mm.py wrote")
    parser.add_argument("--device", type=int, default=0, help="number of the MLU")
    arguments = parser.parse_args()
    try:
        agree = run(arguments.model, arguments.device)
    except RunError as error:
        print(f"run_mm.py: {error}", file=sys.stderr)
        return 1
    print("all outputs agree" if agree else "outputs differ")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
