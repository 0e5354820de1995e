"""Rules about build_config.json and the pins that go with it (C1 to C17)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from graphforge.targets.magicmind.lint.finding import Finding, Severity, Subject, checks
from graphforge.targets.magicmind.options import ARCHS, PRECISIONS

__all__: list[str] = []

_FILE = "build_config.json"
# Every key that public text or samples show, with its type.  What MagicMind does with others is not public.
_FREE = object()
_KEYS: dict[str, Any] = {
    "archs": list,
    "graph_shape_mutable": bool,
    "dim_range": dict,
    "precision_config": {
        "precision_mode": str,
        "weight_quant_granularity": str,
        "activation_quant_algo": str,
    },
    "opt_config": {
        "type64to32_conversion": bool,
        "conv_scale_fold": bool,
        "clustering_launch_enable": bool,
        "tfu_enable": bool,
        "auto_fusion_enable": bool,
    },
    "computation_preference": str,
    "compute_determinism": bool,
    "convert_input_layout": dict,
    "convert_output_layout": dict,
    "insert_bn_before_firstnode": dict,
    "cross_compile_toolchain_path": str,
    "custom_ranges": dict,
    "custom_nodes": dict,
    "crop_config": dict,
    "debug_config": {"fusion_enable": bool, "print_ir": dict},
}
_CHOICES = {
    ("precision_config", "precision_mode"): tuple(PRECISIONS),
    ("precision_config", "weight_quant_granularity"): ("per_tensor", "per_axis"),
    ("precision_config", "activation_quant_algo"): ("symmetric", "asymmetric"),
    ("computation_preference",): ("auto", "fast", "high_precision"),
}
_LAYOUTS = {("NCHW", "NHWC"), ("NCT", "NTC"), ("NCDHW", "NDHWC")}


def _error(identity: str, tag: str, message: str, fix: str = "") -> Finding:
    return Finding(identity, Severity.ERROR, tag, message, _FILE, fix)


@checks("C1", "D,I", "strict JSON with documented keys")
def _schema(subject: Subject) -> Iterator[Finding]:
    if subject.config is None:
        return
    if subject.folder is not None:
        text = (subject.folder / _FILE).read_text(encoding="utf-8")
        doubles: list[str] = []
        json.loads(text, object_pairs_hook=lambda pairs: _without_doubles(pairs, doubles))
        for key in doubles:
            yield _error("C1", "I", f"key {key!r} occurs twice")
    yield from _unknown(subject.config, _KEYS, ())


def _without_doubles(pairs: list[tuple[str, Any]], doubles: list[str]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            doubles.append(key)
        seen[key] = value
    return seen


def _unknown(given: Mapping[str, Any], known: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Finding]:
    for key, value in given.items():
        name = ".".join((*path, key))
        if key not in known:
            yield _error("C1", "D,I", f"key {name!r} is not documented", f"known: {', '.join(known)}")
            continue
        kind = known[key]
        wanted = dict if isinstance(kind, dict) else kind
        if not isinstance(value, wanted):
            yield _error("C1", "D", f"{name} is {json.dumps(value)}, expected a {wanted.__name__}")
        elif isinstance(kind, dict):
            yield from _unknown(value, kind, (*path, key))


@checks("C2", "D", "values of enumerations")
def _enumerations(subject: Subject) -> Iterator[Finding]:
    for keys, choices in _CHOICES.items():
        value = subject.setting(*keys)
        if value is not None and value not in choices:
            yield _error("C2", "D", f"{'.'.join(keys)} is {value!r}, expected one of {', '.join(choices)}")


@checks("C3", "D", "architectures")
def _archs(subject: Subject) -> Iterator[Finding]:
    archs = subject.setting("archs", default=[])
    for entry in archs if isinstance(archs, list) else []:
        clusters: Any = []
        if isinstance(entry, str):
            name = entry
        elif isinstance(entry, dict) and len(entry) == 1:
            name, clusters = next(iter(entry.items()))
        else:
            yield _error("C3", "D", f"archs has {json.dumps(entry)}, expected a name or one name with its clusters")
            continue
        if name.partition(".")[0] in (*ARCHS, "mtp_322") and "." in name:
            message = f"arch {name!r}: dotted names occur in C++ samples only"
            yield Finding("C3", Severity.WARNING, "O", message, _FILE)
        elif name not in ARCHS:
            yield _error("C3", "D", f"arch {name!r} is not one of {', '.join(ARCHS)}")
        if not isinstance(clusters, list) or not all(type(n) is int and n > 0 for n in clusters):
            yield _error("C3", "D", f"arch {name!r}: cluster counts are positive integers, got {clusters}")
        elif name == "mtp_372" and any(count > 8 for count in clusters):
            message = f"arch mtp_372: {max(clusters)} clusters, the X4 card has 8 and the S4 card 6"
            yield Finding("C3", Severity.NOTE, "D", message, _FILE)


@checks("C4", "D,I", "dim_range is well formed")
def _dim_range(subject: Subject) -> Iterator[Finding]:
    ranges = subject.setting("dim_range", default={})
    inputs = [value for value in subject.model.graph.inputs if not value.is_initializer()]
    described = (subject.bundle or {}).get("inputs", [])
    for key, given in ranges.items() if isinstance(ranges, dict) else []:
        if not (key.isascii() and key.isdigit() and len(key) < 10) or int(key) >= len(inputs):
            yield _error("C4", "I", f"dim_range has key {key!r}, the inputs are 0 to {len(inputs) - 1}")
            continue
        if not isinstance(given, dict) or set(given) != {"min", "max"}:
            yield _error("C4", "D", f"dim_range {key}: expected min and max, got {json.dumps(given)}")
            continue
        low, high, shape = given["min"], given["max"], inputs[int(key)].shape
        rank = None if shape is None else len(shape)
        if len(low) != len(high) or (rank is not None and len(low) != rank):
            yield _error("C4", "D", f"dim_range {key}: {low} and {high} do not fit an input of rank {rank}")
            continue
        if any(not 1 <= a <= b for a, b in zip(low, high, strict=True)):
            yield _error("C4", "I", f"dim_range {key}: expected 1 <= min <= max, got {low} and {high}")
        dims = described[int(key)]["dims"] if int(key) < len(described) else low
        if any(not a <= size <= b for a, size, b in zip(low, dims, high, strict=False)):
            yield _error("C4", "I", f"dim_range {key}: the dims set at build, {dims}, lie outside {low}..{high}")


@checks("C6", "D,O", "several varying dims")
def _varying(subject: Subject) -> Iterator[Finding]:
    ranges = subject.setting("dim_range", default={})
    for key, given in ranges.items() if isinstance(ranges, dict) else []:
        if not isinstance(given, dict) or not {"min", "max"} <= set(given):
            continue
        count = sum(a != b for a, b in zip(given["min"], given["max"], strict=False))
        if count > 1:
            message = f"dim_range {key} varies {count} dims: a README allows one, several samples vary more"
            yield Finding("C6", Severity.NOTE, "D,O", message, _FILE)


@checks("C7", "O", "immutable shapes are static")
def _immutable(subject: Subject) -> Iterator[Finding]:
    if subject.config is None or subject.setting("graph_shape_mutable", default=True) is not False:
        return
    if "dim_range" in subject.config:
        yield _error("C7", "O", "dim_range is given, but graph_shape_mutable is false")
    described = (subject.bundle or {}).get("inputs")
    for index, value in enumerate(subject.model.graph.inputs):
        is_set = described is not None and index < len(described) and described[index]["dims"]
        if value.shape is not None and not value.shape.is_static() and not is_set:
            yield _error("C7", "O", f"input {value.name!r} has dynamic dims, but graph_shape_mutable is false")


@checks("C8", "O", "dynamic dims have a range")
def _covered(subject: Subject) -> Iterator[Finding]:
    if subject.config is None or subject.setting("graph_shape_mutable", default=True) is not True:
        return
    ranges = subject.setting("dim_range", default={})
    for index, value in enumerate(subject.model.graph.inputs):
        if value.shape is None or value.shape.is_static() or value.is_initializer():
            continue
        if isinstance(ranges, dict) and str(index) not in ranges:
            yield _error("C8", "O", f"input {value.name!r} has dynamic dims and no dim_range")


@checks("C9", "D", "quantised precision is calibrated")
def _calibrated(subject: Subject) -> Iterator[Finding]:
    precision = str(subject.setting("precision_config", "precision_mode", default=""))
    if not precision.startswith("qint") or subject.bundle is None:
        return
    if subject.setting("custom_ranges") is not None:
        message = f"{precision} with custom_ranges: it compiles, and its accuracy means nothing"
        yield Finding("C9", Severity.WARNING, "D", message, _FILE)
        return
    calibration = subject.bundle.get("calibration")
    streams = len(calibration["inputs"]) if calibration else 0
    if streams != len(subject.bundle["inputs"]):
        wanted = len(subject.bundle["inputs"])
        yield _error("C9", "D", f"{precision} has {streams} calibration streams for {wanted} inputs")


@checks("C10", "D", "EQNM is symmetric")
def _eqnm(subject: Subject) -> Iterator[Finding]:
    calibration = (subject.bundle or {}).get("calibration") or {}
    is_asymmetric = subject.setting("precision_config", "activation_quant_algo") == "asymmetric"
    if calibration.get("algorithm") == "EQNM_ALGORITHM" and is_asymmetric:
        yield _error("C10", "D", "EQNM works with symmetric activations only")


@checks("C11", "D,I", "insert_bn_before_firstnode")
def _insert_bn(subject: Subject) -> Iterator[Finding]:
    inserted = subject.setting("insert_bn_before_firstnode", default={})
    inputs = [value for value in subject.model.graph.inputs if not value.is_initializer()]
    for key, given in inserted.items() if isinstance(inserted, dict) else []:
        if not (key.isascii() and key.isdigit() and len(key) < 10) or int(key) >= len(inputs):
            yield _error("C11", "D", f"insert_bn_before_firstnode has key {key!r}")
            continue
        mean, var = given.get("mean", []), given.get("var", [])
        value = inputs[int(key)]
        channels = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
        if len(mean) != len(var) or (isinstance(channels, int) and len(mean) != channels):
            yield _error("C11", "D", f"insert_bn {key}: mean and var have one number for each of {channels} channels")
        # pixels from 0 to 255 spread over 50 to 60, which squared is some thousands
        if any(m > 2 and v < (1 if m < 20 else 256) for m, v in zip(mean, var, strict=False)):
            message = f"insert_bn {key}: var {var} beside mean {mean}: var is the square of std, in units of the mean"
            yield Finding("C11", Severity.WARNING, "I", message, _FILE)
        if any(user.op_type != "Conv" for user, _ in value.uses()):
            yield _error("C11", "D", f"insert_bn {key}: the first layer is not a Conv")
        entries = (subject.bundle or {}).get("inputs", [])
        fed = entries[int(key)].get("run_dtype") if int(key) < len(entries) else None
        if fed not in (None, "UINT8"):
            yield _error(
                "C11",
                "D",
                f"insert_bn {key}: the input takes UINT8 pixels then, and the bundle feeds it {fed}",
                "leave insert_bn_before_firstnode out, or normalise in the model",
            )


@checks("C12", "D", "layout conversions")
def _layouts(subject: Subject) -> Iterator[Finding]:
    for what, values in (
        ("convert_input_layout", subject.model.graph.inputs),
        ("convert_output_layout", subject.model.graph.outputs),
    ):
        given = subject.setting(what, default={})
        for key, pair in given.items() if isinstance(given, dict) else []:
            ends = (pair.get("src"), pair.get("dst"))
            if ends not in _LAYOUTS and ends[::-1] not in _LAYOUTS:
                yield _error("C12", "D", f"{what} {key}: {ends[0]} to {ends[1]} is not a conversion it knows")
                continue
            if not (key.isascii() and key.isdigit() and len(key) < 10) or int(key) >= len(values):
                yield _error("C12", "D", f"{what} has key {key!r}")
                continue
            shape = values[int(key)].shape
            if shape is not None and len(shape) != len(ends[0]):
                yield _error("C12", "D", f"{what} {key}: {ends[0]} on a value of rank {len(shape)}")


@checks("C13", "D,O", "64-bit conversion is on")
def _converts(subject: Subject) -> Iterator[Finding]:
    if subject.config is None:
        return
    if subject.setting("opt_config", "type64to32_conversion", default=False) is not True:
        message = "opt_config.type64to32_conversion is not true; a PyTorch export has 64-bit shape arithmetic"
        yield _error("C13", "D,O", message, "set it to true")


@checks("C15", "D", "cross compiler for the edge chip")
def _toolchain(subject: Subject) -> Iterator[Finding]:
    archs = subject.setting("archs", default=[])
    names = [
        name for entry in archs if isinstance(archs, list) for name in ([entry] if isinstance(entry, str) else entry)
    ]
    if "tp_322" in names and not subject.setting("cross_compile_toolchain_path"):
        yield _error("C15", "D", "arch tp_322 without cross_compile_toolchain_path")


@checks("C16", "O", "sensitive operators under force_float16")
def _sensitive(subject: Subject) -> Iterator[Finding]:
    if subject.setting("precision_config", "precision_mode") != "force_float16":
        return
    pins = list((subject.bundle or {}).get("pins", ()))
    loose = sorted(
        {
            node.op_type
            for node in subject.nodes()
            if node.op_type in ("Exp", "Sqrt", "NonMaxSuppression")
            and not any(pin in (node.name or "") for pin in pins)
        }
    )
    if loose:
        message = f"force_float16 with {', '.join(loose)} not pinned to float32"
        yield Finding("C16", Severity.WARNING, "O", message, fix="name the nodes in pins")


@checks("C17", "I", "pins name nodes")
def _pins(subject: Subject) -> Iterator[Finding]:
    names = [node.name or "" for node in subject.nodes()]
    for pin in (subject.bundle or {}).get("pins", ()):
        if not any(pin in name for name in names):
            message = f"no node is called {pin!r}, which is to stay in float32: build_mm.py stops there"
            yield Finding(
                "C17", Severity.ERROR, "I", message, "bundle.json", "name the nodes in pins by a part of theirs"
            )
