"""Bad input of every kind, given to the installed command: one clear message with a way out, nothing left behind.

Each case is a folder of files, a command line, and what must come: exit code, the message, and the notes that show the
way out.  No traceback, no artifact, no half-written folder.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import COMMAND, Outcome, command_under_way, environment, run_command

if TYPE_CHECKING:
    import onnx

NET = """
import torch

def build(width=4):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, width, 3), torch.nn.ReLU())
"""


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        arguments: after `graphforge`.
        message: what must stand after `error: `, as a regular expression for the whole line.
        note: a regular expression that one of the notes must match from its start.
        code: exit code.
        files: name -> content.
        make: makes the files that are not text.
    """

    arguments: tuple[str, ...]
    message: str
    note: str
    code: int = 1
    files: dict[str, str] = field(default_factory=dict)
    make: Callable[[Path], None] | None = None


def _compile(model: str, *more: str) -> tuple[str, ...]:
    return ("compile", model, "-o", "out/bundle", *more)


def _truncated_onnx(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(_onnx_model().SerializeToString()[:-40])


def _escaping_onnx(folder: Path) -> None:
    """A file whose weights claim to lie outside its folder: reading them would leak whatever is there."""
    import onnx

    model = _onnx_model()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../../../../etc/passwd")
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def _onnx_model() -> onnx.ModelProto:
    import numpy as np
    import onnx
    from onnx import helper

    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 16]) for name in "xy")
    weight = onnx.numpy_helper.from_array(np.ones((16, 16), np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _other_checkpoint(folder: Path) -> None:
    import torch

    torch.save(torch.nn.Linear(2, 2).state_dict(), folder / "w.pth")


def _wider_checkpoint(folder: Path) -> None:
    import torch

    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)).state_dict(), folder / "w.pth")


class _Harmful:
    """Pickled, it would run a command when read."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("touch harmed",))


def _pickle_checkpoint(folder: Path) -> None:
    import torch

    torch.save({"state_dict": _Harmful()}, folder / "w.pth")


def _garbage_checkpoint(folder: Path) -> None:
    (folder / "w.pth").write_bytes(b"this is no checkpoint")


def _npz_of_other_rank(folder: Path) -> None:
    import numpy as np

    np.savez(folder / "x.npz", input=np.zeros((3, 8, 8), np.float32))


def _npz_of_other_dtype(folder: Path) -> None:
    import numpy as np

    np.savez(folder / "x.npz", input=np.zeros((1, 3, 8, 8), np.int64))


X = ("--input", "input:1x3x8x8")
NET_FILE = {"net.py": NET}

CASES: dict[str, Case] = {
    # -- the command line itself ---------------------------------------------------------------------------------------
    "unknown_verb": Case(
        ("compil", "net.py:build"), "no such command 'compil'", "did you mean `graphforge compile`", 2
    ),
    "unknown_option": Case(
        _compile("net.py:build", "--inptu", "x:1"), "no such option '--inptu'", "did you mean one", 2
    ),
    "unreadable_input": Case(
        _compile("net.py:build", "--input", "x=1,3,8,8"),
        "cannot read input 'x=1,3,8,8'",
        "write it as name:1x3x224x224",
        2,
    ),
    "unknown_dtype": Case(
        _compile("net.py:build", "--input", "x:1x3:float33"), "input 'x': unknown dtype 'float33'", "known: float32", 2
    ),
    "unreadable_dynamic": Case(
        _compile("net.py:build", *X, "--dynamic", "input:0=1-8"),
        "cannot read dynamic dim '0=1-8' of input 'input'",
        "write it as axis=low..high",
        2,
    ),
    "dynamic_on_unknown_input": Case(
        _compile("net.py:build", *X, "--dynamic", "image:0=1..8"),
        "--dynamic names input 'image', but the inputs are: input",
        "dynamic dims go by",
        2,
    ),
    "example_outside_its_range": Case(
        _compile("net.py:build", *X, "--dynamic", "input:0=2..8"),
        "input 'input': the example's size 1 on axis 0 is outside the promised range 2..8",
        "widen the range",
        2,
    ),
    "kwargs_that_are_not_json": Case(
        _compile("net.py:build", *X, "--kwargs", "width=4"), "--kwargs is not JSON: .*", "write it like ", 2
    ),
    "unknown_target": Case(
        _compile("net.py:build", *X, "--target", "tensort"), "unknown target 'tensort'", "did you mean 'tensorrt'", 2
    ),
    "opset_out_of_range": Case(
        _compile("net.py:build", *X, "--opset", "99"),
        r"opset 99 cannot be delivered, expected \d+\.\.\d+",
        ".*newest",
        2,
    ),
    "unknown_pass": Case(
        _compile("net.py:build", *X, "--pipeline", "fold-constant"),
        "no pass is called 'fold-constant'",
        "did you mean fold-constants",
        2,
    ),
    "options_beside_a_pass_file": Case(
        _compile("net.py:build", *X, "--pass", "mine.py:Mine{keep=5}"),
        "cannot read pass 'mine.py:Mine{keep=5}'",
        "options go into the pipeline: --pipeline ",
        2,
    ),
    "unknown_pass_option": Case(
        _compile("net.py:build", *X, "--pipeline", "fold-constants{sise=3}"),
        "pass fold-constants has no option 'sise'",
        "its options: ",
        2,
    ),
    "pass_file_without_that_class": Case(
        _compile("net.py:build", *X, "--pass", "mine.py:Nope"),
        "mine.py has no pass 'Nope'",
        "mine.py defines no pass",
        2,
        {"mine.py": "answer = 42\n"},
    ),
    # -- the model -----------------------------------------------------------------------------------------------------
    "unknown_model_spec": Case(_compile("resnet50", *X), "cannot read model 'resnet50'", "a model is one of: "),
    "file_without_callable": Case(
        _compile("net.py", *X),
        "cannot read model 'net.py'",
        "name what builds the model in it, for example net.py:build",
        files={"net.py": NET},
    ),
    "builder_without_return": Case(
        _compile("net.py:build", *X),
        "'net.py:build' gave nothing, expected an nn.Module or \\(nn.Module, inputs\\)",
        "end it with a return of the model",
        files={"net.py": "def build():\n    pass\n"},
    ),
    "missing_file": Case(_compile("gone.onnx"), "model file 'gone.onnx' does not exist", "a model is one of: "),
    "missing_module": Case(
        _compile("no_such_package.nets:build", *X), "there is no module 'no_such_package'", "a model is one of: "
    ),
    "import_error_in_the_users_file": Case(
        _compile("net.py:build", *X),
        "importing 'net.py' failed: ModuleNotFoundError: No module named 'not_installed'",
        r"raised at .*net\.py:2",
        files={"net.py": "import os\nimport not_installed\n"},
    ),
    "function_that_is_not_there": Case(
        _compile("net.py:biuld", *X), "'net.py:biuld': no 'biuld' there", "did you mean build", files=NET_FILE
    ),
    "function_of_quite_another_name": Case(
        _compile("net.py:zzz", *X), "'net.py:zzz': no 'zzz' there", "it has .*build", files=NET_FILE
    ),
    "function_that_fails": Case(
        _compile("net.py:build", *X, "--kwargs", '{"depth": 3}'),
        r"building 'net.py:build' failed: TypeError: build\(\) got an unexpected keyword argument 'depth'",
        r"it takes \(width\), --kwargs gave \(depth\)",
        files=NET_FILE,
    ),
    "truncated_onnx": Case(
        _compile("model.onnx"),
        ".*model.onnx is not an ONNX model, or it is truncated.*",
        "fetch or export the file again",
        make=_truncated_onnx,
    ),
    "onnx_with_data_outside_its_folder": Case(_compile("model.onnx"), ".*outside.*", "", make=_escaping_onnx),
    "nan_weights": Case(
        _compile("net.py:build", *X),
        "onnxruntime does not agree with eager: at example .*: output output: the reference itself gives nan at .*",
        "NaN or Inf begins at: 0 .Conv2d.",
        files={
            "net.py": NET.replace("return ", "net = ") + "    net[0].weight.data[0] = float('nan')\n    return net\n"
        },
    ),
    # -- the checkpoint ------------------------------------------------------------------------------------------------
    "missing_checkpoint": Case(
        _compile("net.py:build", *X, "--checkpoint", "gone.pth"),
        "checkpoint 'gone.pth' does not exist",
        "give the path",
        files=NET_FILE,
    ),
    "checkpoint_of_another_model": Case(
        _compile("net.py:build", *X, "--checkpoint", "w.pth"),
        "checkpoint 'w.pth' does not fit: 2 keys missing, 2 unexpected",
        r"missing: 0\.weight, 0\.bias",
        files=NET_FILE,
        make=_other_checkpoint,
    ),
    "checkpoint_of_another_size": Case(
        _compile("net.py:build", *X, "--checkpoint", "w.pth"),
        r"checkpoint 'w.pth': '0.weight' has shape \(8, 3, 3, 3\), not \(4, 3, 3, 3\)",
        "2 keys differ in shape",
        files=NET_FILE,
        make=_wider_checkpoint,
    ),
    "checkpoint_that_runs_code": Case(
        _compile("net.py:build", *X, "--checkpoint", "w.pth"),
        "checkpoint 'w.pth' holds more than tensors and would run code when read",
        "if you trust where it came from: --trust-pickle",
        files=NET_FILE,
        make=_pickle_checkpoint,
    ),
    "checkpoint_that_is_none": Case(
        _compile("net.py:build", *X, "--checkpoint", "w.pth"),
        "checkpoint 'w.pth' is not a file that torch.save wrote",
        "give the path of a .pth file, or of a .safetensors file",
        files=NET_FILE,
        make=_garbage_checkpoint,
    ),
    # -- the inputs ----------------------------------------------------------------------------------------------------
    "no_inputs": Case(
        _compile("net.py:build"),
        "no inputs were given and the model brings none",
        "say what it takes: --input",
        2,
        NET_FILE,
    ),
    "wrong_rank": Case(
        _compile("net.py:build", "--input", "input:8x8"),
        "the model does not run on these inputs: RuntimeError: Expected 3D .* but got input of size.*",
        r"given: input \[8, 8\] float32",
        files=NET_FILE,
    ),
    "wrong_dtype": Case(
        _compile("net.py:build", "--input", "input:1x3x8x8:int64"),
        "the model does not run on these inputs: RuntimeError: Input type .*",
        r"given: input \[1, 3, 8, 8\] int64",
        files=NET_FILE,
    ),
    "file_of_other_rank": Case(
        _compile("net.py:build", *X, "--input-file", "x.npz"),
        r"input 'input': expected shape \(1, 3, 8, 8\), got \(3, 8, 8\)",
        "data and the declared input must agree",
        2,
        NET_FILE,
        _npz_of_other_rank,
    ),
    "file_of_other_dtype": Case(
        _compile("net.py:build", *X, "--input-file", "x.npz"),
        "input 'input': expected dtype float32, got int64",
        "data and the declared input must agree",
        2,
        NET_FILE,
        _npz_of_other_dtype,
    ),
    "missing_input_file": Case(
        _compile("net.py:build", "--input-file", "gone.jpg"), "input file 'gone.jpg' does not exist", "the path", 2
    ),
    "picture_that_is_none": Case(
        _compile("net.py:build", "--input-file", "photo.jpg"),
        "picture 'photo.jpg' cannot be read: .*",
        "open it in a viewer",
        files={**NET_FILE, "photo.jpg": "not a picture"},
    ),
    # -- the output ----------------------------------------------------------------------------------------------------
    "output_that_is_a_file": Case(
        ("compile", "net.py:build", *X, "-o", "net.py"),
        "output 'net.py' is a file, expected a folder",
        "choose a folder: -o",
        files=NET_FILE,
    ),
    "output_that_is_something_else": Case(
        ("compile", "net.py:build", *X, "-o", "."),
        "output folder '.' exists and is not a bundle",
        "choose an empty or new folder: -o",
        files=NET_FILE,
    ),
    "output_in_no_folder": Case(
        ("compile", "net.py:build", *X, "-o", "net.py/bundle"),
        "cannot make output folder 'net.py/bundle' in 'net.py': it is a file",
        "choose a writable folder: -o",
        files=NET_FILE,
    ),
}


def _listing(folder: Path) -> set[str]:
    """Everything in the folder but Python's own cache."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "__pycache__" not in path.as_posix()}


def _assert_told(outcome: Outcome, code: int, message: str, note: str) -> None:
    assert outcome.code == code, outcome.stderr
    assert "Traceback" not in outcome.stderr + outcome.stdout
    assert outcome.stdout == ""
    assert re.fullmatch(message, outcome.error), outcome.stderr
    assert outcome.error[-1] not in ".!"
    assert outcome.notes, outcome.stderr
    assert any(re.match(note, line) for line in outcome.notes), outcome.stderr
    said = {f"error: {outcome.error}", *(f"  note: {line}" for line in outcome.notes)}
    rest = [line for line in outcome.stderr.splitlines() if line and line not in said and not line.startswith(" " * 8)]
    assert not rest, outcome.stderr


@dataclass(frozen=True)
class Ended:
    """How a case ended: the command's outcome and what its folder held before and after."""

    outcome: Outcome
    before: set[str]
    after: set[str]


def _run_case(case: Case, folder: Path) -> Ended:
    folder.mkdir()
    for file, content in case.files.items():
        (folder / file).write_text(content)
    if case.make is not None:
        case.make(folder)
    before = _listing(folder)
    outcome = run_command(*case.arguments, cwd=folder)
    return Ended(outcome, before, _listing(folder))


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """The selected cases, run as many at a time as there are processors: each starts Python, most import torch."""
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    selected = {item.callspec.params["name"] for item in functions if "ended" in item.fixturenames}
    folder = tmp_path_factory.mktemp("cases")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = {name: pool.submit(_run_case, CASES[name], folder / name) for name in CASES if name in selected}
    return {name: future.result() for name, future in futures.items()}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_told_and_leaves_nothing(name: str, ended: dict[str, Ended]) -> None:
    case, end = CASES[name], ended[name]
    _assert_told(end.outcome, case.code, case.message, case.note)
    assert end.after == end.before


def test_there_are_twenty() -> None:
    assert len(CASES) >= 20


def test_json_tells_the_error_as_one_document(tmp_path: Path) -> None:
    import json

    outcome = run_command("compile", "gone.onnx", "--json", cwd=tmp_path)
    assert outcome.code == 1
    document = json.loads(outcome.stdout)
    assert document["error"]["message"] == "model file 'gone.onnx' does not exist"
    assert document["error"]["exit_code"] == 1


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: writing the weights fails in the middle."""
    (tmp_path / "net.py").write_text(NET)
    before = _listing(tmp_path)
    done = subprocess.run(
        [*COMMAND, *_compile("net.py:build", *X, "--kwargs", '{"width": 4096}')],
        cwd=tmp_path,
        env={**environment(), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        check=False,
    )
    _assert_told(Outcome(done.returncode, done.stdout, done.stderr), 1, "cannot write .*: File too large", "free space")
    assert _listing(tmp_path) == before


def test_unwritable_output_leaves_nothing(tmp_path: Path) -> None:
    """A folder of the kernel's, which not even root may write to."""
    (tmp_path / "net.py").write_text(NET)
    outcome = run_command("compile", "net.py:build", *X, "-o", "/proc/graphforge/bundle", cwd=tmp_path)
    _assert_told(outcome, 1, "cannot (write to|make output folder) '/proc/graphforge.*", "choose a writable folder")


@pytest.mark.parametrize("moment", ["loading", "capturing"])
def test_interruption_is_told_and_leaves_nothing(moment: str, tmp_path: Path) -> None:
    """The model says through a pipe that it has been reached, and waits there for the signal."""
    reached, says = os.pipe()
    program = f"""
import os, time
import torch

def wait():
    os.write({says}, b"reached")
    while True:  # in short sleeps: a signal that comes just before a long one would not end it
        time.sleep(0.05)

class Net(torch.nn.Module):
    def forward(self, input):
        {"wait()" if moment == "capturing" else "pass"}
        return input + 1

def build():
    {"wait()" if moment == "loading" else "pass"}
    return Net()
"""
    (tmp_path / "net.py").write_text(program)
    before = _listing(tmp_path)
    with command_under_way(*_compile("net.py:build", *X), cwd=tmp_path, pass_fds=(says,)) as process:
        os.close(says)  # the command's copy is the last one: the pipe ends when the command does
        told = os.read(reached, 7)
        os.close(reached)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    assert told == b"reached", (stdout, stderr)
    _assert_told(Outcome(process.returncode, stdout, stderr), 130, "interrupted", "nothing was left half-written")
    assert _listing(tmp_path) == before


def test_failed_compilation_keeps_the_earlier_bundle(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    assert run_command(*_compile("net.py:build", *X), cwd=tmp_path).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    (tmp_path / "net.py").write_text("raise RuntimeError('broken today')\n")
    assert run_command(*_compile("net.py:build", *X), cwd=tmp_path).code == 1
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
