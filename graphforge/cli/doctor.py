"""`graphforge doctor`: what is installed, what works here, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

import click

import graphforge
from graphforge.cli.console import print_json

__all__ = ["Finding", "State", "command", "examine"]

# distribution -> why it is needed; all of these come with graphforge itself
_REQUIRED = {
    "torch": "captures and runs models",
    "numpy": "carries tensors between runtimes",
    "onnx": "defines the operators",
    "onnx-ir": "is the graph",
    "onnxscript": "translates operators that have no lowering here",
    "onnxruntime": "runs what was compiled",
    "onnx-graphsurgeon": "exchanges graphs with GraphSurgeon scripts",
    "polygraphy": "runs and compares artifacts",
    "click": "reads the command line",
    "rich": "prints tables",
    "jinja2": "writes reports",
    "pillow": "reads pictures",
}
# distribution -> (what it adds, how to get it)
_OPTIONAL = {
    "torchvision": ("models by torchvision:NAME", "pip install 'graphforge-compiler[torchvision]'"),
    "timm": ("models by timm:NAME", "pip install 'graphforge-compiler[timm]'"),
    "transformers": ("Hugging Face models", "pip install 'graphforge-compiler[transformers]'"),
    "safetensors": ("checkpoints in .safetensors files", "pip install safetensors"),
    "onnxsim": ("the optional pass onnxsim", "pip install 'graphforge-compiler[onnxsim]'"),
    "openvino": ("models for OpenVINO, run here", "pip install 'graphforge-compiler[openvino]'"),
    "tensorrt-rtx-cu13": ("plans for TensorRT-RTX", "pip install 'graphforge-compiler[tensorrt-rtx]'"),
    "tensorrt": ("plans for classic TensorRT", "pip install 'graphforge-compiler[tensorrt]'"),
}


class State(StrEnum):
    """How one thing stands."""

    OK = "ok"
    ABSENT = "absent"  # optional and not there
    BROKEN = "broken"  # needed and not there, or there and not working
    KNOWN = "known"  # goes wrong, and nothing here can be done about it


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer.

    Attributes:
        section: ``machine``, ``required``, ``optional``, ``works here`` or ``known faults``.
        name: what was looked at.
        state: how it stands.
        detail: version, size, reason.
        advice: what to do about it; empty when there is nothing to do.
    """

    section: str
    name: str
    state: State
    detail: str
    advice: str = ""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the list.")
def command(as_json: bool) -> int:
    """Say what is installed, what works here, and what to do about the rest.

    Everything is tried, not looked up: ONNX Runtime loads models of one opset after another, torchvision's library is
    loaded, every target is asked whether it can work.  Ends with exit code 1 when something graphforge needs is broken.

    \b
    Examples:
      graphforge doctor
      graphforge doctor --json > doctor.json
    """
    findings = list(examine())
    if as_json:
        print_json({"graphforge": graphforge.__version__, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    needed = {"required", "works here"}
    return int(any(finding.state is State.BROKEN and finding.section in needed for finding in findings))


def examine() -> Iterator[Finding]:
    """Every finding, in the order of the answer; a check that fails is itself a finding."""
    yield from _machine()
    for name, purpose in _REQUIRED.items():
        yield _required(name, purpose)
    for name, (purpose, install) in _OPTIONAL.items():
        yield _optional(name, purpose, install)
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("ONNX Runtime", _onnxruntime),
        ("torch devices", _torch_devices),
        ("torchvision", _torchvision),
        ("targets", _targets),
        ("known faults", _known_faults),
    ]
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:  # whatever is wrong with a package is what this command is asked to tell
            yield Finding("works here", name, State.BROKEN, f"{type(error).__name__}: {_first_line(error)}")


def _print(findings: list[Finding]) -> None:
    """Plain text on purpose: the doctor must speak even when the table printer is what is missing."""
    marks = {State.OK: "ok    ", State.ABSENT: "absent", State.BROKEN: "BROKEN", State.KNOWN: "known "}
    width = max(len(finding.name) for finding in findings)
    section = ""
    print(f"graphforge {graphforge.__version__}")
    for finding in findings:
        if finding.section != section:
            section = finding.section
            print(f"\n{section}")
        print(f"  {marks[finding.state]}  {finding.name:<{width}}  {finding.detail}")
        if finding.advice:
            print(f"          {'':<{width}}  note: {finding.advice}")


def _machine() -> Iterator[Finding]:
    version = platform.python_version()
    supported = sys.version_info >= (3, 11)
    yield Finding(
        "machine",
        "python",
        State.OK if supported else State.BROKEN,
        f"{version} at {sys.executable}",
        "" if supported else "graphforge needs Python 3.11 or newer",
    )
    yield Finding("machine", "system", State.OK, f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs")


def _required(name: str, purpose: str) -> Finding:
    version = _installed_version(name)
    if version is not None:
        return Finding("required", name, State.OK, version)
    advice = "pip install graphforge-compiler"
    return Finding("required", name, State.BROKEN, f"not installed; it {purpose}", advice)


def _optional(name: str, purpose: str, install: str) -> Finding:
    version = _installed_version(name)
    if version is not None:
        return Finding("optional", name, State.OK, version)
    return Finding("optional", name, State.ABSENT, f"not installed; adds {purpose}", install)


def _installed_version(name: str) -> str | None:
    from importlib import metadata  # a third of the time `graphforge --help` takes, were it imported above

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _onnxruntime() -> Iterator[Finding]:
    import onnx
    import onnxruntime

    from graphforge.ir import HOME_OPSET
    from graphforge.targets.onnx.target import DEFAULT_OPSET, LOWEST_OPSET, RUNTIME
    from graphforge.targets.tables import facts_of

    facts = facts_of(RUNTIME)
    newest_defined = onnx.defs.onnx_opset_version()
    newest = next((opset for opset in range(newest_defined, 0, -1) if _loads(opset)), 0)
    advice = facts.note
    if newest < HOME_OPSET:
        advice = f"graphs between passes are of opset {HOME_OPSET}, --check-passes and bisect run them: "
        advice += "pip install --upgrade onnxruntime"
    elif newest != facts.newest_opset and not facts.note:
        advice = f"the table of facts says {facts.newest_opset}: graphforge and its table do not belong together"
    yield Finding(
        "works here",
        "ONNX Runtime",
        State.OK if newest >= DEFAULT_OPSET else State.BROKEN,
        f"loads opsets up to {newest} (onnx defines {newest_defined}); providers: "
        + ", ".join(onnxruntime.get_available_providers()),
        advice,
    )
    yield Finding(
        "works here",
        "opsets",
        State.OK,
        f"graphforge delivers {LOWEST_OPSET} to {HOME_OPSET}, {min(DEFAULT_OPSET, facts.newest_opset)} unless --opset "
        f"says otherwise; graphs are written in {HOME_OPSET}, the newest that its rules know, and never raised",
    )


def _loads(opset: int) -> bool:
    """Whether ONNX Runtime really loads and runs a model of that opset."""
    import numpy as np
    import onnx

    from graphforge.runners.session import new_session

    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "probe", [x], [y])
    # the oldest IR version that may carry this opset, so that the answer is about the opset alone
    ir_version = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=max(ir_version, 4)
    )
    try:
        (result,) = new_session(model).run(None, {"x": np.array([-1.0, 2.0], np.float32)})
    except Exception:  # onnxruntime raises classes of its own for every status code; "no" is the answer
        return False
    return bool(result.tolist() == [0.0, 2.0])


def _torch_devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Finding("works here", "GPU", State.OK, f"{names}; CUDA {torch.version.cuda}")
        return
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"
    yield Finding(
        "works here",
        "GPU",
        State.ABSENT,
        f"none usable ({built})",
        "only running a TensorRT plan needs one; compiling to every target works without",
    )


def _torchvision() -> Iterator[Finding]:
    from graphforge.frontend.torchvision_fix import TorchvisionState, ensure_torchvision, torchvision_state

    if torchvision_state() is TorchvisionState.MISSING:
        return  # said under "optional"
    state = ensure_torchvision()
    repaired = state is TorchvisionState.REPAIRED
    yield Finding(
        "works here",
        "torchvision",
        State.OK,
        state.value,
        "nms and roi_align run, slower than compiled; a torchvision built for this torch has them all"
        if repaired
        else "",
    )


def _targets() -> Iterator[Finding]:
    from graphforge.targets import get_target, target_names

    for name in target_names():
        try:
            reason = get_target(name).available()
        except Exception as error:  # a broken vendor package is a finding, and the other targets are still asked
            yield Finding("works here", f"target {name}", State.BROKEN, f"{type(error).__name__}: {_first_line(error)}")
            continue
        state = State.OK if reason is None else State.ABSENT
        yield Finding("works here", f"target {name}", state, "available" if reason is None else reason)


def _known_faults() -> Iterator[Finding]:
    from graphforge.targets.onnx.target import RUNTIME
    from graphforge.targets.tables import facts_of

    for runtime in (RUNTIME, "openvino"):
        facts = facts_of(runtime)
        for fault in facts.faults if facts.version is not None else ():
            yield Finding("known faults", fault.name, State.KNOWN, f"{facts.called}: {fault.effect}", fault.cure)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
