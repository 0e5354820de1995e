"""A soak: random programs and random ONNX graphs, compiled and judged without GraphForge's own verification.

    scripts/bench fuzz --seconds 600 --seed 1         both kinds, in turn
    scripts/bench fuzz --only graphs --seconds 300
    scripts/bench fuzz --again 1234 --only programs   one of them, its source printed

A program is wrong when its file, in ONNX Runtime with optimisations off or on, departs from eager at any promised size;
an ONNX graph when the new file departs from the old one.  What rounding can do is measured by inputs that are off in
the last place.  What is found is made smaller and kept in a folder, a file each.
Exit code 1 when anything is wrong or dies.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from scripts import fuzz_graphs, fuzz_programs
from scripts.fuzz_judge import compile_graph, compile_program

ROOT = Path(__file__).resolve().parent.parent
SECONDS_EACH = 60  # of the CPU, so that a busy machine hangs nothing
ATTEMPTS_EACH = 100  # in one process: what the first ones loaded is there for the next, as in a process that serves
SECONDS_WAITED = 900  # for one that waits without end
SHORTEN = 40  # compilations that may be spent on making one finding smaller


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended.

    Attributes:
        verdict: right, refused, undecided, wrong, died, hangs, not drawn.
        reason: the first line of what was said.
        file_was_right: for a refusal by verification or a file left undecided, whether the file was right.
    """

    verdict: str
    reason: str = ""
    file_was_right: bool = False

    @property
    def bad(self) -> bool:
        """Whether this must not happen."""
        return self.verdict in ("wrong", "died", "hangs")

    @property
    def kind(self) -> str:
        """The reason without names and numbers."""
        return re.sub(r"'[^']*'", "'...'", re.sub(r"-?\d[\d.e+-]*", "#", self.reason))[:110]


def main() -> int:
    """Print the table; the exit code says whether anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0, help="the first seed; each attempt takes the next")
    parser.add_argument("--count", type=int, default=1 << 60, help="attempts of each kind at most")
    parser.add_argument("--only", choices=("programs", "graphs"))
    parser.add_argument("--keep", type=Path, default=ROOT / "out" / "fuzz", metavar="FOLDER")
    parser.add_argument("--again", type=int, metavar="SEED", help="one attempt, its source printed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the numbers, written each minute")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kinds = [options.only] if options.only else ["programs", "graphs"]
    if options.again is not None:
        for kind in kinds:
            attempt = _attempt(kind, options.again)
            print(attempt.source)
            print(_in_a_process(attempt.compile))
        return 0
    _warm_up()
    options.keep.mkdir(parents=True, exist_ok=True)
    found: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    start = time.monotonic()
    seed, bad, tried, written = options.seed, 0, 0, start

    def write() -> None:
        if options.json:
            told = {"verdicts": found, "reasons": reasons, "seed": options.seed, "seconds": time.monotonic() - start}
            options.json.write_text(json.dumps(told, indent=1) + "\n")

    worker = _Worker()
    while time.monotonic() - start < options.seconds and tried < options.count:
        for kind in kinds:
            outcome = worker.outcome(kind, seed)
            found[kind][outcome.verdict] += 1
            if outcome.verdict == "not drawn":
                continue
            if outcome.verdict in ("refused", "undecided"):
                found[kind]["not passed though the file was right"] += outcome.file_was_right
                reasons[outcome.kind][kind] += 1
            # what verification or the writer's own check alone found is a fault of something before it
            if outcome.bad or outcome.file_was_right or re.search(" agree | is not delivered", outcome.reason):
                bad += outcome.bad
                where = _keep(kind, seed, outcome, options.keep)
                print(f"{kind} {seed}: {outcome.verdict}: {outcome.reason[:160]}  ({where})", flush=True)
        seed += 1
        tried += 1
        if time.monotonic() > written + 60:
            write()
            written = time.monotonic()
    worker.end()
    print(_table(found, reasons, time.monotonic() - start, options.seed))
    write()
    return int(bad > 0)


class _Worker:
    """A process that tries one seed after another; a new one follows when it dies, hangs or has done its share."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Any = None
        self._left = 0

    def outcome(self, kind: str, seed: int) -> Outcome:
        """What one attempt came to; "not drawn" where the runtime that draws it ended: no file yet."""
        if not self._left:
            self.end()
            self._start()
        self._left -= 1
        self._pipe.send((kind, seed))
        verdict = "not drawn"
        try:
            while self._pipe.poll(SECONDS_WAITED):
                answer = self._pipe.recv()
                if answer is not None:
                    return Outcome(**answer)
                verdict = "died"  # drawn: from here on an end is ours
            ended = Outcome("hangs", f"no end after {SECONDS_WAITED} s")
        except EOFError:
            self._process.join(15)
            ended = _end_of(self._process.exitcode)
        self._left = 0
        return ended if verdict == "died" else Outcome(verdict, ended.reason)

    def end(self) -> None:
        """Let the process go."""
        if self._process is None:
            return
        self._pipe.close()
        self._process.kill()
        self._process.join()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self._pipe))
        self._process.start()
        other.close()
        self._left = ATTEMPTS_EACH


def _serve(pipe: Any, parents: Any) -> None:
    parents.close()
    _quiet()
    while True:
        try:
            kind, seed = pipe.recv()
        except EOFError:
            return
        _limit()
        attempt = _attempt(kind, seed)
        pipe.send(None)
        pipe.send(attempt.compile())


def _limit() -> None:
    """So many seconds of the CPU from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + SECONDS_EACH, hard))


def _quiet() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _end_of(code: int | None) -> Outcome:
    if code == -signal.SIGXCPU:
        return Outcome("hangs", f"no end after {SECONDS_EACH} s of the CPU")
    return Outcome("died", f"the process ended with {code}")


def _keep(kind: str, seed: int, outcome: Outcome, folder: Path) -> Path:
    """Save the smallest attempt that ends the same way, found by fresh processes."""
    attempt = _attempt_of(_answer_of_a_process(lambda: _draw(kind, seed)), seed)
    alone = _in_a_process(attempt.compile)
    if (alone.verdict, alone.file_was_right) == (outcome.verdict, outcome.file_was_right):
        attempt, outcome = _smaller(attempt, alone)
    else:
        outcome = Outcome(outcome.verdict, f"only after others ({alone.verdict} alone): {outcome.reason}")
    where = folder / f"{kind}_{seed}{attempt.suffix}"
    attempt.save(where, outcome)
    return where


@dataclass(frozen=True, slots=True)
class _Attempt:
    source: str
    suffix: str
    compile: Callable[[], dict[str, Any]]
    shorter: Callable[[], Any]
    content: Any = None

    def save(self, where: Path, outcome: Outcome) -> None:
        if self.suffix == ".py":
            where.write_text(f"# {outcome.verdict}: {outcome.reason}\n{self.source}")
        else:
            where.write_bytes(self.content.SerializeToString())
            where.with_suffix(".txt").write_text(f"{outcome.verdict}: {outcome.reason}\n{self.source}")


def _attempt(kind: str, seed: int) -> _Attempt:
    return _attempt_of(_draw(kind, seed), seed)


def _draw(kind: str, seed: int) -> fuzz_programs.Program | fuzz_graphs.Graph:
    return fuzz_programs.draw_program(seed) if kind == "programs" else fuzz_graphs.draw_graph(seed)


def _attempt_of(drawn: fuzz_programs.Program | fuzz_graphs.Graph, seed: int) -> _Attempt:
    return _graph(drawn, seed) if isinstance(drawn, fuzz_graphs.Graph) else _program(drawn, seed)


def _program(program: fuzz_programs.Program, seed: int) -> _Attempt:
    return _Attempt(
        program.source(),
        ".py",
        lambda: compile_program(program.source(), seed),
        lambda: [_program(smaller, seed) for smaller in fuzz_programs.shorter(program)],
    )


def _graph(graph: fuzz_graphs.Graph, seed: int) -> _Attempt:
    return _Attempt(
        graph.text(),
        ".onnx",
        lambda: compile_graph(graph, seed),
        lambda: [_graph(smaller, seed) for smaller in fuzz_graphs.shorter(graph)],
        graph.model(),
    )


def _smaller(attempt: _Attempt, outcome: Outcome) -> tuple[_Attempt, Outcome]:
    """The smallest attempt found that ends the same way."""
    left = SHORTEN
    progress = True
    while progress and left > 0:
        progress = False
        for candidate in attempt.shorter():
            if left <= 0 or candidate.source == attempt.source:
                continue
            left -= 1
            said = _in_a_process(candidate.compile)
            if said.verdict == outcome.verdict and said.file_was_right == outcome.file_was_right:
                attempt, outcome, progress = candidate, said, True
                break
    return attempt, outcome


def _in_a_process(work: Callable[[], dict[str, Any]]) -> Outcome:
    """Run in a fork of its own, so that nothing that was tried before plays a part and a death is an outcome."""
    answer = _answer_of_a_process(work)
    return answer if isinstance(answer, Outcome) else Outcome(**answer)


def _answer_of_a_process(work: Callable[[], Any]) -> Any:
    """What a fork answers; an Outcome where it dies or does not end."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        _limit()
        _quiet()
        sender.send(work())

    process = context.Process(target=child)
    process.start()
    sender.close()
    try:
        if not receiver.poll(SECONDS_WAITED):
            process.kill()
            return Outcome("hangs", f"no end after {SECONDS_WAITED} s")
        return receiver.recv()
    except EOFError:
        process.join(15)
        return _end_of(process.exitcode)
    finally:
        receiver.close()
        process.join(10)
        if process.is_alive():
            process.kill()


def _warm_up() -> None:
    """What the first compilation loads is loaded before the forks."""
    import graphforge

    with tempfile.TemporaryDirectory() as folder:
        layer = torch.nn.Linear(2, 2).eval()
        shapes: Any = [{0: (1, 3)}]
        graphforge.compile(layer, (torch.ones(2, 2),), dynamic_shapes=shapes, verify=False, output=f"{folder}/b")
    np.random.default_rng(0)


def _table(found: dict[str, Counter[str]], reasons: dict[str, Counter[str]], seconds: float, seed: int) -> str:
    heads = ["right", "refused", "not passed though the file was right", "undecided", "wrong", "died", "hangs"]
    lines = ["", f"{seconds:.0f} s, seeds from {seed}", "", f"| kind | tried | {' | '.join(heads)} |", "|---" * 9 + "|"]
    for kind, verdicts in found.items():
        tried = sum(count for verdict, count in verdicts.items() if verdict not in (heads[2], "not drawn"))
        lines.append(f"| {kind} | {tried} | {' | '.join(str(verdicts[head]) for head in heads)} |")
    if reasons:
        lines += ["", "| not passed because | programs | graphs |", "|---|---|---|"]
        for reason, counts in sorted(reasons.items(), key=lambda item: -item[1].total()):
            lines.append(f"| {reason.replace('|', '/')} | {counts['programs']} | {counts['graphs']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
