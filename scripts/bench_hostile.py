"""Damaged files, absurd arguments, signals at random moments and little memory, all through the command line.

scripts/bench hostile [--files N] [--arguments N] [--kills N] [--seconds S] [--seed S] [--keep FOLDER] [--json FILE]
scripts/bench hostile --sum FILE...     the table of several runs' numbers, added up

Everything runs as the installed command does, in forks of a process that has imported what it needs.  A fork serves
some dozens of cases, one after the other; a case that ends it, or that has a fault, runs again in a fork of its own,
and what comes of that counts.  Signals and little memory have forks of their own anyway.  What counts as a fault: a
traceback, an end by a signal, no end within 60 s of the CPU, an exit code that is not 0, 1, 2 or that of the signal
sent, a file that was half-written, leftovers.  Ends with exit code 1 when there is one; each is kept with the command
that repeats it.  The numbers are written each minute.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.hostile_damage import damaged
from scripts.hostile_seeds import write_seeds

_HANG = 60  # seconds of the CPU, so that a busy machine hangs nothing
_WAITED = 900  # for one that waits without end
_SERVED = 40  # cases by one fork
_TURNS = {"onnx files": 10, "manifest files": 3, "argument lists": 3, "pt2 files": 2}  # before the next kind's
_LITTLE = 3 << 30  # bytes of memory for every tenth case
_TEXTS = ("", "x", "-1", "0", "1e999", "nan", "9" * 40, "{", "[bold]", "\x1b[31m", "../..", "a=b", "x:2x3", "x:0=1..4")
_FLAGS = (
    *(
        "--input",
        "--dynamic",
        "--range",
        "--input-file",
        "--seed",
        "--kwargs",
        "--checkpoint",
        "--opset",
        "--precision",
    ),
    *("--option", "--outputs", "--nms", "--capture", "--pass", "--pipeline", "--rtol", "--atol", "--limit", "--target"),
    *("--node", "--level", "--against", "--runs", "--warmup", "--score", "--labels", "--mean", "--std", "--draw", "-o"),
    *("--substitute", "--custom-op", "--print-after"),
)
# Commands that do, to be spoiled.
_WHOLE = (
    ["compile", "net.py:build", "--input", "x:4x3", "-o", "out"],
    ["compile", "shapes.onnx", "--input", "x:4x3", "--dynamic", "x:0=1..9", "-o", "out", "--no-verify"],
    ["inspect", "net.py:build", "--input", "x:4x3", "--dynamic", "x:0=1..9/2"],
    ["inspect", "linear.pt2"],
    ["optimize", "shapes.onnx", "--input", "x:4x3"],
    ["opset", "windows.onnx"],
    ["run", "bundle", "--input", "x.npy"],
    ["profile", "bundle", "--runs", "1", "--warmup", "0"],
    ["diff", "net.py:build", "--input", "x:4x3", "--against", "bundle"],
    ["bisect", "net.py:build", "--input", "x:4x3"],
    ["lint", "shapes.onnx", "--target", "magicmind"],
    ["report", "bundle"],
    ["passes", "fold-constants"],
    ["targets", "onnx"],
)
_VERBS = "compile optimize targets run inspect passes diff bisect opset lint profile report doctor".split()


@dataclass
class Tally:
    """What came of the cases of one kind."""

    cases: int = 0
    alone: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    told: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    peak: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--arguments", type=int, default=200)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop beginning new cases after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for what made a fault  [default: a new temporary one]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the numbers, written each minute")
    parser.add_argument("--sum", type=Path, nargs="+", metavar="FILE", help="add up what --json wrote, and run nothing")
    options = parser.parse_args()
    if options.sum:
        _print(_added([json.loads(file.read_text()) for file in options.sum]))
        return 0
    warnings.simplefilter("ignore")
    keep = options.keep or Path(tempfile.mkdtemp(prefix="graphforge-hostile-"))
    keep.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as work:
        seeds = _seeds_in_a_child(Path(work) / "seeds")
        _import_everything()
        _warm_up(Path(work) / "seeds")
        kinds: dict[str, Callable[[], Iterator[Tally]]] = {
            **{f"{kind} files": partial(_files, kind, seeds, Path(work), keep, options) for kind in seeds},
            "argument lists": lambda: _arguments(Path(work), keep, options),
            "signals": lambda: _kills(Path(work), keep, options),
        }
        tallies = _in_turn(kinds, end, options.json)
    _print(tallies)
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    for fault in faults[:40]:
        print(f"  {fault}")
    print(f"kept in {keep}" if faults else "no faults")
    return 1 if faults else 0


def _in_turn(kinds: dict[str, Callable[[], Iterator[Tally]]], end: float, numbers: Path | None) -> dict[str, Tally]:
    """Some cases of each kind after the other, so that little time means few of all."""
    running = {name: make() for name, make in kinds.items()}
    tallies: dict[str, Tally] = {}
    written = time.monotonic()
    while running and time.monotonic() < end:
        if numbers is not None and time.monotonic() > written + 60:
            _write(numbers, tallies)
            written = time.monotonic()
        for name, cases in list(running.items()):
            for _ in range(_TURNS.get(name, 1)):
                try:
                    tallies[name] = next(cases)
                except StopIteration:
                    del running[name]
                    break
    for cases in running.values():
        cases.close()  # type: ignore[attr-defined]  # they are generators, with forks to end
    if numbers is not None:
        _write(numbers, tallies)
    return tallies


def _write(numbers: Path, tallies: dict[str, Tally]) -> None:
    staged = numbers.with_name(numbers.name + ".new")
    staged.write_text(json.dumps({name: vars(tally) for name, tally in tallies.items()}, indent=1) + "\n")
    staged.replace(numbers)


def _added(runs: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Tally]:
    """The numbers of several runs as those of one."""
    whole: dict[str, Tally] = {}
    for run in runs:
        for name, numbers in run.items():
            one = Tally(**{**numbers, "ends": Counter(numbers["ends"])})
            tally = whole.setdefault(name, Tally())
            for what in ("cases", "alone", "ends", "faults", "told", "seconds"):
                setattr(tally, what, getattr(tally, what) + getattr(one, what))
            tally.longest, tally.peak = max(tally.longest, one.longest), max(tally.peak, one.peak)
    return whole


def _seeds_in_a_child(folder: Path) -> dict[str, list[Path]]:
    """Compiling starts threads, which a process that forks must not have."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            found = {kind: [str(path) for path in paths] for kind, paths in write_seeds(folder).items()}
            (folder / "seeds.json").write_text(json.dumps(found))
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit("the seeds could not be made")
    found = json.loads((folder / "seeds.json").read_text())
    return {kind: [Path(path) for path in paths] for kind, paths in found.items()}


def _import_everything() -> None:
    import importlib

    import torch

    torch.set_num_threads(1)
    for name in (
        *(f"graphforge.cli.{verb}" for verb in _VERBS),
        *("graphforge.compile", "graphforge.frontend.capture", "graphforge.frontend.lower", "graphforge.passes"),
        *("graphforge.onnx_io.importing", "graphforge.verify", "graphforge.page", "graphforge.opsets.answer"),
        *("onnxruntime", "polygraphy.backend.onnxrt", "torch.export", "torch._dynamo", "sympy", "jinja2", "rich.table"),
        *("torch._export.serde.serialize", "torch.export.pt2_archive._package", "torch._inductor.cpp_builder"),
    ):
        importlib.import_module(name)


def _warm_up(seeds: Path) -> None:
    """What imports on first use is used once, as far as it starts no threads."""
    import contextlib
    import io

    from graphforge.cli.main import run

    folder = seeds.parent / "warm"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for name in ("mixed.onnx", "branches.onnx", "shapes.onnx"):
            run(["inspect", str(seeds / name)])
            run(["opset", str(seeds / name)])
            run(["lint", str(seeds / name), "--target", "magicmind"])
        run(["compile", str(seeds / "windows.onnx"), "--no-verify", "-o", str(folder)])
        run(["report", str(folder)])
        run(["inspect", str(seeds / "linear.pt2")])


@dataclass(frozen=True)
class _End:
    """How one ended: its status (None: it did not), what it said, seconds of the CPU, the most memory it held."""

    status: int | None
    text: str
    seconds: float
    peak: int
    waited: float = 0.0


def _run(
    arguments: Sequence[str], folder: Path, *, little: bool = False, kill: tuple[int, float] | None = None
) -> _End:
    """One command line in a fork of this process, with its output; ``kill`` is a signal and when to send it."""
    output = folder / "output.txt"
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _become_the_command(arguments, folder, output, little)
    status = None
    usage = None
    while time.monotonic() - started < _WAITED:
        if kill is not None and time.monotonic() - started >= kill[1]:
            os.kill(child, kill[0])
            kill = None
        ended, found, usage = os.wait4(child, os.WNOHANG)
        if ended:
            status = found
            break
        time.sleep(0.002)
    else:
        os.kill(child, signal.SIGKILL)
        _, _, usage = os.wait4(child, 0)
    peak, seconds = (0, 0.0) if usage is None else (usage.ru_maxrss, usage.ru_utime + usage.ru_stime)
    text = output.read_text(errors="replace") if output.exists() else ""
    hangs = status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
    return _End(
        None if hangs or "ended by SIGXCPU" in text else status, text, seconds, peak, time.monotonic() - started
    )


def _become_the_command(arguments: Sequence[str], folder: Path, output: Path, little: bool) -> None:
    code = 3
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command looks after it
        os.chdir(folder)
        to = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(to, 1)
        os.dup2(to, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", errors="backslashreplace")
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace")
        if little:
            resource.setrlimit(resource.RLIMIT_DATA, (_LITTLE, _LITTLE))
        resource.setrlimit(resource.RLIMIT_CPU, (_HANG, _HANG + 10))
        from graphforge.cli.main import run
        from graphforge.cli.supervisor import supervised

        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = supervised(run, arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class _Server:
    """A fork that runs command lines one after the other, which saves what a fork of so large a process costs."""

    def __init__(self) -> None:
        self._child = 0
        self._left = 0

    def run(self, arguments: Sequence[str], folder: Path) -> _End | None:
        """One command line; None when that ended the fork, or takes longer than it may."""
        if self._left == 0:
            self.close()
            self._start()
        self._left -= 1
        self._asks.write(json.dumps({"arguments": list(arguments), "folder": str(folder)}).encode() + b"\n")
        self._asks.flush()
        told = b""
        if select.select([self._hears], [], [], _WAITED)[0]:
            told = self._hears.readline()
        if not told:
            self.close()
            return None
        answer = json.loads(told)
        text = (folder / "output.txt").read_text(errors="replace")
        return _End(answer["code"] << 8, text, answer["seconds"], answer["peak"])

    def close(self) -> None:
        """End the fork."""
        self._left = 0
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._child = 0
            with suppress(BrokenPipeError):
                self._asks.close()
            self._hears.close()

    def _start(self) -> None:
        theirs, asks = os.pipe()
        hears, mine = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(asks)
            os.close(hears)
            _serve(theirs, mine)
        os.close(theirs)
        os.close(mine)
        self._asks, self._hears = os.fdopen(asks, "wb"), os.fdopen(hears, "rb")
        self._left = _SERVED


def _serve(asks: int, tells: int) -> None:
    """In the fork; never returns.  It counts as watched, so that foreign code runs in it as it does in a command."""
    from graphforge import last_step
    from graphforge.apart import limit_memory
    from graphforge.cli.main import run

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        last_step.share(mmap.mmap(-1, last_step.PAGE_BYTES))
        limit_memory()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        used = time.process_time()
        with open(asks, "rb") as jobs, open(tells, "wb") as answers:
            for line in jobs:
                job = json.loads(line)
                os.chdir(job["folder"])
                to = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(to, 1)
                os.dup2(to, 2)
                os.close(to)
                sys.stdout = os.fdopen(1, "w", errors="backslashreplace", closefd=False)
                sys.stderr = os.fdopen(2, "w", errors="backslashreplace", closefd=False)
                resource.setrlimit(resource.RLIMIT_CPU, (int(used) + _HANG, resource.RLIM_INFINITY))
                code = run(job["arguments"])
                sys.stdout.flush()
                sys.stderr.flush()
                before, used = used, time.process_time()
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                answers.write(json.dumps({"code": code, "seconds": used - before, "peak": peak}).encode() + b"\n")
                answers.flush()
    finally:
        os._exit(3)


def _is_fault(end: _End) -> bool:
    return os.WEXITSTATUS(end.status or 0) not in (0, 1, 2) or "Traceback (most recent call last)" in end.text


def _judge(tally: Tally, end: _End, allowed: Sequence[int] = (0, 1, 2)) -> str:
    """Count a case; what is wrong with how it ended, "" when nothing is."""
    tally.cases += 1
    tally.seconds += end.seconds
    tally.longest = max(tally.longest, end.seconds)
    tally.peak = max(tally.peak, end.peak)
    tally.told += " died (SIG" in end.text or "was ended by SIG" in end.text
    if end.status is None:
        tally.ends["hang"] += 1
        return f"no end in {_HANG} s of the CPU"
    if os.WIFSIGNALED(end.status):
        number = os.WTERMSIG(end.status)
        tally.ends[signal.Signals(number).name] += 1
        return "" if -number in allowed else f"ended by {signal.Signals(number).name}"
    code = os.WEXITSTATUS(end.status)
    tally.ends[str(code)] += 1
    if "Traceback (most recent call last)" in end.text:
        return f"traceback: {_last_error(end.text)}"
    return "" if code in allowed else f"exit code {code}"


def _last_error(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    return lines[-1][:160] if lines else text[-160:].replace("\n", " ")


def _files(
    kind: str, seeds: dict[str, list[Path]], work: Path, keep: Path, options: argparse.Namespace
) -> Iterator[Tally]:
    draw = random.Random(f"{options.seed} {kind}")
    weight = {"onnx": 0.5, "pt2": 0.12, "manifest": 0.2}.get(kind, 0.06)
    tally = Tally()
    folder = work / kind
    source = seeds[kind][0].parent
    server = _Server()

    def fill(name: str, content: bytes) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if kind == "manifest":
            shutil.copytree(source, folder / "bundle")
        for other in ("net.py", "x.npy"):
            shutil.copy((source if kind != "manifest" else source.parent) / other, folder / other)
        (folder / name).write_bytes(content)

    for number in _counted(round(options.files * weight), server):
        seed = draw.choice(seeds[kind])
        name = "bundle/manifest.json" if kind == "manifest" else f"m{seed.suffix}"
        content = damaged(seed.read_bytes(), kind, draw)
        arguments = _command(kind, Path(name).name, draw)
        little = draw.random() < 0.1
        fill(name, content)
        before = sorted(entry.name for entry in folder.iterdir())
        end = None if little else server.run(arguments, folder)
        if end is None or _is_fault(end):
            fill(name, content)
            end = _run(arguments, folder, little=little)
            tally.alone += 1
        wrong = _judge(tally, end)
        if not wrong:
            left = [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]
            wrong = f"left behind: {left}" if left else ""
        if wrong:
            kept = keep / f"{kind}-{options.seed}-{number}"
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            tally.faults.append(f"{kept}: graphforge {' '.join(arguments)}: {wrong} (of {', '.join(before)})")
        yield tally


def _counted(count: int, server: _Server) -> Iterator[int]:
    """The numbers up to a count; after the last one, or where no more are asked for, the server ends."""
    try:
        yield from range(count)
    finally:
        server.close()


def _command(kind: str, name: str, draw: random.Random) -> list[str]:
    x = ["--input", "x:4x3"]
    choices = {
        "onnx": [
            ["compile", name, "-o", "out", "--no-verify"],
            ["compile", name, "-o", "out"],
            ["optimize", name],
            ["inspect", name],
            ["opset", name],
            ["lint", name, "--target", "magicmind"],
            ["profile", name, "--runs", "1", "--warmup", "0"],
        ],
        "pt2": [["compile", name, "-o", "out", "--no-verify"], ["inspect", name]],
        "pt": [["inspect", name, *x], ["compile", name, *x, "-o", "out", "--no-verify"]],
        "pth": [["inspect", "net.py:build", "--checkpoint", name, *x]],
        "npz": [["inspect", "net.py:build", "--input-file", name], ["compile", "net.py:build", "--input-file", name]],
        "manifest": [
            ["report", "bundle"],
            ["profile", "bundle", "--runs", "1", "--warmup", "0"],
            ["run", "bundle", "--input", "x.npy"],
            ["diff", "net.py:build", *x, "--against", "bundle"],
        ],
    }
    return draw.choice(choices[kind])


def _arguments(work: Path, keep: Path, options: argparse.Namespace) -> Iterator[Tally]:
    draw = random.Random(f"{options.seed} arguments")
    tally = Tally()
    source, folder = work / "seeds", work / "arguments"
    names = (
        "net.py:build",
        "shapes.onnx",
        "linear.pt2",
        "bundle",
        "x.npz",
        "net.py",
        "os:system",
        "torchvision:nothing",
    )
    server = _Server()

    def fill() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)

    for _ in _counted(options.arguments, server):
        arguments = list(draw.choice(_WHOLE))
        for _ in range(draw.choice((1, 1, 2, 3))):
            flag = draw.choice(_FLAGS)
            value = draw.choice((*_TEXTS, *names, f"{draw.choice('xyz')}:{draw.randrange(9)}x{draw.choice(_TEXTS)}"))
            if draw.random() < 0.4:
                arguments[draw.randrange(len(arguments))] = value
            else:
                arguments += draw.choice(([flag, value], [flag, value], [flag], [f"{flag}={value}"]))
        if draw.random() < 0.2:
            arguments.append("--json")
        arguments = [argument.replace("\0", "") for argument in arguments]
        fill()
        end = server.run(arguments, folder)
        if end is None or _is_fault(end):
            fill()
            end = _run(arguments, folder)
            tally.alone += 1
        wrong = _judge(tally, end)
        if wrong:
            tally.faults.append(f"graphforge {arguments}: {wrong}")
        yield tally


def _kills(work: Path, keep: Path, options: argparse.Namespace) -> Iterator[Tally]:
    """Ends of all sorts while a bundle is written over an earlier one: one of the two is whole, and nothing stays."""
    draw = random.Random(f"{options.seed} kills")
    tally = Tally()
    folder = work / "kills"
    shutil.copytree(work / "seeds", folder)
    arguments = [["compile", name, *more, "-o", "out"] for name, more in _PAIR]
    whole = set()
    length = 0.0
    for one in arguments:
        end = _run(one, folder)
        length = max(length, end.waited)
        whole.add(_contents(folder / "out"))
    assert "" not in whole, end.text
    for number in range(options.kills):
        sent = draw.choice((signal.SIGTERM, signal.SIGKILL, signal.SIGINT))
        end = _run(arguments[number % 2], folder, kill=(sent, draw.uniform(0, length)))
        wrong = _judge(tally, end, (0, 128 + sent, -sent))
        if _contents(folder / "out") not in whole:
            wrong = wrong or f"after {sent.name} the bundle is neither the earlier one nor the new one"
        if wrong:
            tally.faults.append(f"{sent.name}: {wrong}: {_last_error(end.text)}")
        yield tally
    time.sleep(0.2)  # what was killed last goes with its parent
    _run(arguments[0], folder)
    left = [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]
    if left:
        tally.faults.append(f"left behind after the next run: {left}")
    yield tally


_PAIR = (("shapes.onnx", ("--input", "x:2x3")), ("windows.onnx", ("--input", "x:1x3x8x8")))


def _contents(bundle: Path) -> str:
    """What a whole bundle says of itself: its model's digest; "" for one that is not whole."""
    try:
        manifest = json.loads((bundle / "manifest.json").read_text())
        digests = [hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in manifest["files"]]
    except (OSError, ValueError, KeyError):
        return ""
    return " ".join(digests)


def _print(tallies: dict[str, Tally]) -> None:
    print("| kind | cases | in a fork alone | ends (exit code or signal) | crashes told | faults ", end="")
    print("| CPU s a case | longest CPU s | peak MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, tally in tallies.items():
        ends = ", ".join(f"{end}: {count}" for end, count in sorted(tally.ends.items()))
        print(
            f"| {name} | {tally.cases} | {tally.alone} | {ends} | {tally.told} | {len(tally.faults)} "
            f"| {tally.seconds / max(tally.cases, 1):.2f} | {tally.longest:.1f} | {tally.peak / 1024:.0f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
