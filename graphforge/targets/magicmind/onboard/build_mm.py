#!/usr/bin/env python3
"""Build the MagicMind model of this bundle.  Runs where MagicMind is installed; reads bundle.json beside it.

    python3 build_mm.py [--output model.magicmind] [--device 0 | --remote HOST:PORT]

Needs Python 3.7 or newer, numpy and MagicMind.  A device (or a remote one) is needed for calibration only.
Exit code 0 when the model is written, 1 with one line that says what failed otherwise.
"""
# ruff: noqa: B905
# mypy: ignore-errors

import argparse
import hashlib
import json
import os
import sys

import magicmind.python.runtime as mm
import numpy as np
from magicmind.python.runtime.parser import Parser

HERE = os.path.dirname(os.path.abspath(__file__))


class BuildError(Exception):
    """Something failed; the text says what."""


def check(status, what):
    """Every Status that MagicMind returns goes through here: an unchecked failure would surface much later."""
    if not status.ok():
        raise BuildError(f"{what} failed: {status}")


def in_bundle(name):
    return os.path.join(HERE, *name.split("/"))


def read_bundle():
    with open(in_bundle("bundle.json"), encoding="utf-8") as file:
        bundle = json.load(file)
    for part in ("model", "config"):
        name = bundle[part]["file"]
        with open(in_bundle(name), "rb") as file:
            found = hashlib.sha256(file.read()).hexdigest()
        if found != bundle[part]["sha256"]:
            raise BuildError(f"{name} is not the file that bundle.json describes (its sha256 differs)")
    return bundle


def read_network(bundle):
    """Parse the ONNX file and give every input its dims, bound by position: names may not survive the import."""
    network = mm.Network()
    parser = Parser(mm.ModelKind.kOnnx)
    check(parser.parse(network, in_bundle(bundle["model"]["file"])), "parsing the ONNX file")
    inputs = bundle["inputs"]
    if network.get_input_count() != len(inputs):
        raise BuildError(
            f"the parsed network has {network.get_input_count()} inputs, the bundle describes {len(inputs)}"
        )
    if network.get_output_count() != len(bundle["outputs"]):
        raise BuildError(
            "the parsed network has {} outputs, the bundle describes {}".format(
                network.get_output_count(), len(bundle["outputs"])
            )
        )
    for entry in inputs:
        if entry["dims"]:  # a scalar has no dims to set
            tensor = network.get_input(entry["index"])
            check(tensor.set_dimension(mm.Dims(tuple(entry["dims"]))), "setting dims of input " + entry["name"])
    return network


def pin_to_float32(network, pins):
    """Keep the named nodes in float32: in reduced precision they overflow or lose the order of scores."""
    floats = (mm.DataType.FLOAT16, mm.DataType.FLOAT32)
    for pin in pins:
        found = 0
        for node in network.get_all_nodes_in_network():
            if pin not in node.get_node_name():
                continue
            found += 1
            for index in range(node.get_input_count()):
                if node.get_input(index).get_data_type() in floats:
                    check(node.set_precision(index, mm.DataType.FLOAT32), "pinning an input of " + pin)
            for index in range(node.get_output_count()):
                if node.get_output(index).get_data_type() in floats:
                    check(node.set_output_type(index, mm.DataType.FLOAT32), "pinning an output of " + pin)
        if found == 0:
            raise BuildError(f"no node of the parsed network is called {pin}, which is to stay in float32")


class CalibrationData(mm.CalibDataInterface):
    """The stored feeds of one input, one after the other, in the layout and dtype of the ONNX file."""

    def __init__(self, entry, dims, feeds):
        super().__init__()
        self._dtype = getattr(mm.DataType, entry["dtype"])
        self._shape = tuple(dims)
        self._feeds = feeds
        self._next = 0
        self._sample = None

    def get_shape(self):
        return mm.Dims(self._shape)

    def get_data_type(self):
        return self._dtype

    def get_sample(self):
        return self._sample

    def next(self):
        if self._next >= len(self._feeds):
            return mm.Status(mm.Code.OUT_OF_RANGE, "no more calibration data")
        files = self._feeds[self._next]
        self._next += 1
        sample = np.concatenate([np.load(in_bundle(name)) for name in files], axis=0) if len(files) > 1 else None
        self._sample = np.ascontiguousarray(np.load(in_bundle(files[0])) if sample is None else sample)
        self._shape = self._sample.shape
        return mm.Status.OK()

    def reset(self):
        self._next = 0
        self._sample = None
        return mm.Status.OK()


def feeds_of(files, per_feed):
    """Groups of files that make one feed; what is left over at the end makes none and is dropped."""
    count = len(files) // per_feed
    return [files[index * per_feed : (index + 1) * per_feed] for index in range(count)]


def calibrate(network, config, bundle, device_id, remote):
    calibration = bundle["calibration"]
    streams = []
    for entry, described in zip(calibration["inputs"], bundle["inputs"]):
        feeds = feeds_of(entry["files"], entry["files_per_feed"])
        if not feeds:
            raise BuildError("input {} has less calibration data than one feed".format(described["name"]))
        streams.append(CalibrationData(entry, described["dims"], feeds))
    calibrator = mm.Calibrator(streams)
    algorithm = getattr(mm.QuantizationAlgorithm, calibration["algorithm"])
    check(calibrator.set_quantization_algorithm(algorithm), "setting the quantization algorithm")
    if remote is not None:
        config_of_remote = mm.RemoteConfig()
        config_of_remote.address = remote
        check(calibrator.set_remote(config_of_remote), "setting the remote device " + remote)
        check(calibrator.calibrate(network, config), "calibration on " + remote)
        return
    with mm.System() as system:
        if not 0 <= device_id < system.device_count():
            raise BuildError(f"device {device_id} does not exist, this machine has {system.device_count()}")
        device = mm.Device()
        device.id = device_id
        check(device.active(), f"activating device {device_id}")
        check(calibrator.calibrate(network, config), "calibration")


def build(output, device_id, remote):
    bundle = read_bundle()
    network = read_network(bundle)
    pin_to_float32(network, bundle["pins"])
    config = mm.BuilderConfig()
    check(config.parse_from_file(in_bundle(bundle["config"]["file"])), "reading build_config.json")
    if bundle["calibration"] is not None:
        calibrate(network, config, bundle, device_id, remote)
    builder = mm.Builder()
    model = builder.build_model(bundle["name"], network, config)
    if model is None:
        raise BuildError("MagicMind built no model (its own log above says why)")
    check(model.serialize_to_file(output), "writing " + output)
    print(f"wrote {output}")
    for what, names, dtypes, dims in (
        ("input", model.get_input_names(), model.get_input_data_types(), model.get_input_dimensions()),
        ("output", model.get_output_names(), model.get_output_data_types(), model.get_output_dimensions()),
    ):
        for index, (name, dtype, dim) in enumerate(zip(names, dtypes, dims)):
            print(f"{what} {index}: {name} {dtype} {list(dim.GetDims())}")


def main():
    parser = argparse.ArgumentParser(description="Build the MagicMind model of this bundle.")
    parser.add_argument("--output", default=in_bundle("model.magicmind"), help="file to write")
    parser.add_argument("--device", type=int, default=0, help="number of the MLU that calibrates")
    parser.add_argument("--remote", default=None, help="HOST:PORT of a remote MLU that calibrates")
    arguments = parser.parse_args()
    try:
        build(arguments.output, arguments.device, arguments.remote)
    except BuildError as error:
        print(f"build_mm.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
