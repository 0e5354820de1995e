"""How a command ends that does not end by itself: signals, crashes of vendors, and what is left behind."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from graphforge import last_step
from graphforge.cli import supervisor
from graphforge.staging import folder_beside, put_in_place, sweep
from tests.cli.command import command_under_way, run_command

WAITING = """
import os, time, torch

class Net(torch.nn.Module):
    def forward(self, x):
        return x + 1

def build():
    os.write({says}, b"reached")
    {then}
    return Net()
"""
X = ("--input", "x:2x3")


def _ended_by(number: int, folder: Path) -> tuple[int, str]:
    reached, says = os.pipe()
    (folder / "net.py").write_text(WAITING.format(says=says, then="time.sleep(0.02)\n    " * 500 + "pass"))
    arguments = ("compile", "net.py:build", *X, "-o", "out/bundle")
    with command_under_way(*arguments, cwd=folder, pass_fds=(says,)) as process:
        os.close(says)
        assert os.read(reached, 7) == b"reached"
        os.close(reached)
        process.send_signal(number)
        _, stderr = process.communicate()
    return process.returncode, stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_in_order(tmp_path: Path, number: int, code: int) -> None:
    ended, stderr = _ended_by(number, tmp_path)
    assert ended == code
    assert "nothing was left half-written" in stderr
    assert "Traceback" not in stderr
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "__pycache__") == ["net.py"]


@pytest.mark.parametrize("way", ["os.abort()", "os.kill(os.getpid(), 11)", "os.kill(os.getpid(), 8)"])
def test_a_crash_is_told_and_leaves_nothing(tmp_path: Path, way: str) -> None:
    (tmp_path / "net.py").write_text(WAITING.format(says=1, then=way))
    done = run_command("compile", "net.py:build", *X, "-o", "out/bundle", cwd=tmp_path)
    assert done.code == 1
    assert done.error.startswith("the command was ended by SIG")


ENDING = """
import atexit, pathlib, threading, time, torch

here = pathlib.Path(__file__).parent
log = open(here / "log.txt", "w")
log.write("never closed")
atexit.register((here / "at_exit.txt").write_text, "called")

class Slow:
    def __del__(self):
        (here / "taken_down.txt").write_text("module by module")

slow = Slow()

def late():
    time.sleep(0.2)
    (here / "thread.txt").write_text("waited for")

def build():
    threading.Thread(target=late).start()
    return torch.nn.ReLU()
"""


def test_a_command_ends_without_taking_its_modules_down_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(ENDING)
    done = run_command("compile", "net.py:build", *X, "-o", "out/bundle", "--no-verify", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert (tmp_path / "log.txt").read_text() == "never closed"
    assert (tmp_path / "at_exit.txt").read_text() == "called"
    assert (tmp_path / "thread.txt").read_text() == "waited for"
    assert not (tmp_path / "taken_down.txt").exists()


def test_a_crash_of_the_model_that_explain_captures_is_told(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(WAITING.format(says=1, then="os.abort()"))
    done = run_command("explain", "net.py:build", *X, "Linear", cwd=tmp_path)
    assert done.code == 1
    assert done.error.startswith("the command was ended by SIG")


VENDOR = """
import os, torch
import onnxruntime

class Session(onnxruntime.InferenceSession):
    def __init__(self, *arguments, sess_options, **more):
        if sess_options.graph_optimization_level.name {crashes}:
            os.abort()
        super().__init__(*arguments, sess_options=sess_options, **more)

onnxruntime.InferenceSession = Session

def build():
    return torch.nn.Linear(3, 2).eval()
"""


def test_a_crash_of_onnx_runtimes_optimizer_is_tried_again_with_less_of_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(VENDOR.format(crashes="== 'ORT_ENABLE_ALL'"))
    done = run_command("compile", "net.py:build", *X, "-o", "out", cwd=tmp_path)
    assert done.code == 0
    assert "died (SIGABRT) while it was to load model.onnx; the command runs again" in done.stderr
    assert "it was verified with less of its optimization" in done.stdout
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "__pycache__") == ["net.py", "out"]


def test_a_crash_that_stays_names_the_vendor_and_keeps_the_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(VENDOR.format(crashes="!= ''"))
    done = run_command("compile", "net.py:build", *X, "-o", "out", cwd=tmp_path)
    assert done.code == 1
    assert done.error.startswith("onnxruntime 1.")
    assert done.error.endswith("died (SIGABRT) while it was to load model.onnx")
    (kept,) = [note.partition(": ")[2] for note in done.notes if note.startswith("what it was given is kept")]
    assert Path(kept).is_file()
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "__pycache__") == ["net.py"]


# In a process of its own: signals to a process that has other threads may reach one of them instead.
_HEEDS_NOTHING = """
import mmap, os, signal, sys, time
from graphforge import last_step
from graphforge.cli import supervisor

supervisor._GRACE = 0.2
page = last_step._page = mmap.mmap(-1, last_step.PAGE_BYTES)
waited_for = {signal.SIGTERM, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
child = os.fork()
if child == 0:  # as inside a library
    time.sleep(60)
    os._exit(0)
if sys.argv[1] == "over its time":
    with last_step.within(-1):
        print(supervisor._wait(child, waited_for, page) == (signal.SIGKILL, supervisor._OVER_TIME))
else:
    os.kill(os.getpid(), signal.SIGTERM)
    print(supervisor._wait(child, waited_for, page) == (signal.SIGKILL, signal.SIGTERM))
"""


@pytest.mark.parametrize("why", ["over its time", "told to end"])
def test_what_native_code_does_not_end_is_ended(why: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HEEDS_NOTHING, why], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_run_that_is_over_its_time_is_told() -> None:
    told, notes = supervisor._told({"vendor": "onnxruntime", "what": "run m.onnx"}, supervisor._OVER_TIME)
    assert told == "onnxruntime did not run m.onnx in time"
    assert notes[0].startswith("if it needs more: --limit seconds=")


def test_a_folder_inside_another_leaves_the_outer_one_to_be_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = mmap.mmap(-1, last_step.PAGE_BYTES)
    monkeypatch.setattr(last_step, "_page", page)
    with folder_beside(tmp_path / "net.onnx") as outer:
        with folder_beside(outer / "bundle"):
            assert last_step.last_step(page)["folder"] == str(outer)
        assert last_step.last_step(page)["folder"] == str(outer)
    assert last_step.last_step(page)["folder"] is None


def _left_by_the_dead(parent: Path, name: str, what: str) -> Path:
    """A folder as a process leaves it that is killed while it writes."""
    child = os.fork()
    if child == 0:
        with folder_beside(parent / name) as folder:
            (folder / "half").write_text("written")
            if what == "old":
                folder.rename(folder.with_name(folder.name.replace("-new-", "-old-")))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = [entry for entry in parent.iterdir() if entry.name.startswith(f".{name}.graphforge-{what}")]
    return left


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    left = _left_by_the_dead(tmp_path, "net", "new")
    strange = tmp_path / ".net.something"
    strange.mkdir()
    with folder_beside(tmp_path / "other") as folder:
        assert folder.is_dir()
        sweep(tmp_path)
        assert folder.is_dir()  # its process lives
    assert not left.exists()
    assert strange.is_dir()


def test_a_process_that_only_waits_to_be_buried_is_gone(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with folder_beside(tmp_path / "net"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # dead, and nobody has asked for its status
    assert len(list(tmp_path.iterdir())) == 1
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    os.waitpid(child, 0)


def test_an_earlier_bundle_that_was_put_aside_comes_back(tmp_path: Path) -> None:
    _left_by_the_dead(tmp_path, "net", "old")
    sweep(tmp_path)
    assert (tmp_path / "net" / "half").read_text() == "written"


def test_folders_of_another_machine_are_left_alone(tmp_path: Path) -> None:
    left = _left_by_the_dead(tmp_path, "net", "new")
    parts = left.name.split("-")
    parts[2] = "00000000" if parts[2] != "00000000" else "11111111"
    theirs = left.rename(left.with_name("-".join(parts)))
    sweep(tmp_path)
    assert theirs.is_dir()


def test_the_earlier_folder_or_the_new_one_is_there_at_every_moment(tmp_path: Path) -> None:
    import threading

    wanted = tmp_path / "net"
    wanted.mkdir()
    (wanted / "which").write_text("0")
    missing = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                (wanted / "which").read_text()
            except OSError as error:
                missing.append(error)

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(300):
        with folder_beside(wanted) as folder:
            (folder / "which").write_text(str(number))
            put_in_place(folder, wanted)
    done.set()
    looking.join()
    assert (wanted / "which").read_text() == "299"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net"]
    assert not missing


def test_a_signal_that_is_ignored_ends_nothing() -> None:
    code = (
        "import signal, sys, time\n"
        "from graphforge.cli import supervisor\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does\n"
        "supervisor._GRACE = supervisor._LOOKS_EVERY = 0.1\n"
        "def run(_):\n    print('started', flush=True)\n    time.sleep(0.8)\n    return 7\n"
        "sys.exit(supervisor.supervised(run, ['lint']))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=60) == 7


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("output", [">&-", "> /dev/full"])
@pytest.mark.parametrize("verb", ["lint", "passes"])  # in a process of its own, and in this one
def test_an_output_that_takes_nothing_ends_without_a_traceback(verb: str, output: str) -> None:
    command = f"{sys.executable} -c 'from graphforge.cli.main import main; main()' {verb} --nothing --json {output}"
    done = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


def test_the_end_of_the_child_clears_no_temporary_folder_of_its_parent() -> None:
    script = (
        "import os, tempfile\n"
        "from graphforge.cli.supervisor import supervised\n"
        "folder = tempfile.TemporaryDirectory()\n"
        "supervised(lambda arguments: 0, ['compile'])\n"
        "print(os.path.isdir(folder.name))\n"
    )
    assert _printed(script) == "True\n"


def test_a_signal_that_another_thread_takes_while_a_command_ends_changes_nothing() -> None:
    script = (
        "import os, signal, threading, time\n"
        "from graphforge.cli import supervisor\n"
        "threading.Thread(target=time.sleep, args=(0.5,)).start()\n"
        "supervisor._end_as_interrupted()\n"
        "code = supervisor._to_the_end(lambda arguments: 7, ['lint'])\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n    os.kill(os.getpid(), number)\n"
        "time.sleep(0.1)\n"
        "print(code)\n"
    )
    assert _printed(script) == "7\n"


def _printed(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
