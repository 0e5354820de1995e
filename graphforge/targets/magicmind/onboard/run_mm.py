#!/usr/bin/env python3
"""Run the built MagicMind model on the stored reference inputs and compare with the stored outputs.

    python3 run_mm.py [--model model.magicmind] [--device 0]

Needs Python 3.7 or newer, numpy and MagicMind.  Exit code 0 when every output agrees, 1 otherwise.
"""
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


def compare(case_number, case, found, bundle):
    agree = True
    for index, name in enumerate(case["outputs"]):
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
