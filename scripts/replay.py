"""Process replay: what a change of the code changed in the artifacts, byte for byte.

    scripts/replay record FILE.json [--only NAME,...] [--jobs N] [--root FOLDER] [--keep FOLDER] [--resume]
    scripts/replay compare BEFORE.json AFTER.json [--only NAME,...]
    scripts/replay against REVISION [--only NAME,...] [--jobs N] [--keep FOLDER]

`record` compiles the zoo, the gallery in its forms, some models at old opsets and some MagicMind bundles, unverified,
and writes down a SHA-256 of every file with its size and nodes.  `against` does it with the code of another revision
and with this checkout's, and compares.  A part of a name chooses all that hold it: `--only zoo/timm,gallery/ssd`.

What is not a property of the artifact is taken out before the hash, and nothing else: the folders of the checkout and
of the packages, which nodes name as their source; in JSON files also the lines of the checkout's own files, and in
manifest.json the times.  Every artifact is compiled in a process of its own, from the same seed.
Every ONNX file of them goes through onnx.checker in full; `record` says which are refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["Difference", "Item", "bundle_facts", "differences", "items", "main"]

HERE = Path(__file__).resolve().parent.parent
OPSETS = (17, 11)
FORMS = tuple((outputs, nms) for outputs in ("ragged", "padded") for nms in ("native", "portable"))
FEW_FORMS = (FORMS[0], FORMS[-1])  # of a batch of three: what differs from one image shows in these

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One bundle to compile.

    Attributes:
        name: ``zoo/torchvision/resnet50``.
        compile: writes the bundle into a folder that does not exist yet.
    """

    name: str
    compile: Callable[[Path], object]


# -- what is compiled --------------------------------------------------------------------------------------------------


def items() -> Iterator[Item]:
    """Everything there is to compile, from the checkout that is first on the path."""
    yield from _zoo()
    yield from _gallery()
    yield from _opsets()
    yield from _magicmind()


def _zoo() -> Iterator[Item]:
    from scripts import zoo

    for entry in zoo.ZOO:

        def compile_it(folder: Path, name: str = entry.name) -> None:
            found, module, args, kwargs = zoo.build(name)
            _compile(module, args, kwargs, dynamic_shapes=_tied(found.dynamic), output=folder)

        yield Item(f"zoo/{entry.name}", compile_it)


def _tied(dynamic: Mapping[str, Mapping[int, Any]]) -> Mapping[str, Mapping[int, Any]]:
    """Several inputs have one batch."""
    from graphforge import DimRange

    if len(dynamic) < 2:
        return dynamic
    return {name: {axis: DimRange("batch", *ends) for axis, ends in axes.items()} for name, axes in dynamic.items()}


def _gallery() -> Iterator[Item]:
    from scripts.bench_heads import HEADS

    for head in HEADS:
        for outputs, nms in FEW_FORMS if head.batch == "3" else FORMS:

            def compile_it(folder: Path, head: Any = head, outputs: str = outputs, nms: str = nms) -> None:
                module, inputs = head.make()
                _compile(module, inputs, {}, outputs=outputs, nms=nms, output=folder)

            yield Item(f"gallery/{_plain(head.name)}/{_plain(head.batch)}/{outputs}-{nms}", compile_it)


def _opsets() -> Iterator[Item]:
    from scripts.bench_matrix import MODELS

    for entry in MODELS:
        for opset in OPSETS:

            def compile_it(folder: Path, entry: Any = entry, opset: int = opset) -> None:
                module, args, kwargs = entry.make()
                _compile(
                    module,
                    args,
                    kwargs,
                    dynamic_shapes=entry.dynamic,
                    outputs=entry.outputs,
                    nms=entry.nms,
                    opset=opset,
                    output=folder,
                )

            yield Item(f"opset/{_plain(entry.name)}/{opset}", compile_it)


def _magicmind() -> Iterator[Item]:
    from scripts.bench_bundles import BUNDLES

    for entry, precisions in BUNDLES:
        # a quantised one only where the entry brings its calibration
        for precision in dict.fromkeys([precisions[0], precisions[-1] if entry.calibration else precisions[0]]):

            def compile_it(folder: Path, entry: Any = entry, precision: str = precision) -> None:
                module, args, kwargs = entry.make()
                options = dict(entry.options)
                if precision.startswith("qint"):
                    options["calibration"] = entry.calibration
                _compile(
                    module,
                    args,
                    kwargs,
                    dynamic_shapes=entry.dynamic,
                    target="magicmind",
                    precision=precision,
                    target_options=options,
                    nms=entry.nms,
                    output=folder,
                )

            yield Item(f"magicmind/{_plain(entry.name)}/{precision}", compile_it)


def _compile(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], **options: Any) -> None:
    import graphforge

    graphforge.compile(module, args or None, kwargs=kwargs, verify=False, **options)


def _plain(name: str) -> str:
    """A name that can be typed without quotes and be a folder's."""
    words = "".join(c if c.isalnum() or c in "._" else " " for c in name).split()
    return "-".join(words)


# -- what is written down of a bundle ----------------------------------------------------------------------------------


def bundle_facts(folder: Path, hidden: Mapping[str, str]) -> dict[str, Facts]:
    """Facts of every file of a bundle by its name, hashes taken with the ``hidden`` texts replaced.

    Args:
        folder: the bundle.
        hidden: a folder's path -> what stands for it.
    """
    hidden = {**hidden, str(folder): "<bundle>"}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    facts: dict[str, Facts] = {}
    renamed: dict[str, str] = {}  # a bundle names the hashes of its own files
    for path in sorted(files, key=lambda path: path.suffix != ".onnx"):
        content = path.read_bytes()
        if path.suffix == ".onnx":
            found = {**_onnx_facts(content, hidden), "checker": _complaint(path)}
            renamed[hashlib.sha256(content).hexdigest()] = _digest(
                *(part for name, part in found["parts"].items() if name != _OWN_LINES)
            )
        elif path.suffix == ".json":
            found = _json_facts(_replaced(content.decode(), {**hidden, **renamed}), path.name)
        else:
            found = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        facts[path.relative_to(folder).as_posix()] = found
    return dict(sorted(facts.items()))


def _complaint(path: Path) -> str:
    """What ONNX's own full check says against a file, "" when nothing; asked apart from what compile asks."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return " ".join(str(error).split())[:500]
    return ""


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _onnx_facts(content: bytes, hidden: Mapping[str, str]) -> Facts:
    """Hash of the whole and of its parts; a part tells where a difference lies."""
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(content)
    nodes = list(_all_nodes(model))
    if any(text.encode() in content for text in hidden):
        for node in nodes:
            for entry in node.metadata_props:
                entry.value = _replaced(entry.value, hidden)
        content = model.SerializeToString(deterministic=True)
    whole = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    operators = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes)
    own_lines, notes = hashlib.sha256(), hashlib.sha256()
    for node in nodes:
        for entry in node.metadata_props:
            lines = entry.value.split("\n")
            sources = [line for line in lines if line.startswith("<checkout>/")]
            own_lines.update(repr((entry.key, sources)).encode())
            rest = ["<checkout>" if line.startswith("<checkout>/") else line for line in lines]
            # equal lines are written once: which of them are equal depends on the lines of our own files
            rest = rest[:1] if len(set(rest)) == 1 else rest
            notes.update(repr((entry.key, rest)).encode())
        del node.metadata_props[:]
        node.doc_string = ""
    weights = hashlib.sha256()
    for graph in _graphs(model):
        for tensor in graph.initializer:
            weights.update(tensor.SerializeToString(deterministic=True))
        del graph.initializer[:]
    texts = b"".join(node.SerializeToString(deterministic=True) for node in nodes)
    parts = {"nodes": hashlib.sha256(texts), "weights": weights, "metadata": notes, _OWN_LINES: own_lines}
    del model.graph.node[:]
    parts["header, inputs, outputs and types"] = hashlib.sha256(model.SerializeToString(deterministic=True))
    return {
        **whole,
        "nodes": len(nodes),
        "operators": dict(sorted(operators.items())),
        "parts": {name: part.hexdigest()[:16] for name, part in parts.items()},
    }


_OWN_LINES = "lines of the checkout's own files"
_OWN_LINE = re.compile(r"<checkout>/[\w./-]+:\d+")


def _graphs(model: Any) -> Iterator[Any]:
    yield model.graph
    for node in _all_nodes(model):
        for attribute in node.attribute:
            yield from _bodies(attribute)


def _all_nodes(model: Any) -> Iterator[Any]:
    """Nodes of the graph, of the bodies in it and of functions, each before those of its bodies."""
    stack = [*reversed(model.graph.node)]
    for function in model.functions:
        stack[:0] = [*reversed(function.node)]
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            for body in _bodies(attribute):
                stack += reversed(body.node)


def _bodies(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _json_facts(text: str, name: str) -> Facts:
    text = _OWN_LINE.sub("<checkout>", text)
    content = json.loads(text)
    if name == "manifest.json":
        text = json.dumps(_without_times(content), indent=2, sort_keys=True)
        content = json.loads(text)
    parts = {}
    if isinstance(content, dict):
        parts = {key: _digest(json.dumps(value))[:16] for key, value in content.items()}
    return {"sha256": _digest(text), "bytes": len(text.encode()), "parts": parts}


def _without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_times(value) for key, value in content.items() if key != "seconds"}
    if isinstance(content, list):
        return [_without_times(value) for value in content]
    return content


def _replaced(text: str, hidden: Mapping[str, str]) -> str:
    for found, stand_in in hidden.items():
        text = text.replace(found, stand_in)
    return text


# -- record ------------------------------------------------------------------------------------------------------------


def record(file: Path, root: Path, only: Sequence[str], jobs: int, keep: Path | None, resume: bool) -> int:
    """Compile with the code of ``root``, which is the only checkout on the path, and write the facts."""
    import torch

    random.seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    hidden = _hidden(root)
    chosen = [item for item in items() if _is_chosen(item.name, only)]
    if not chosen:
        sys.exit(f"replay: no artifact's name holds {' or '.join(only)}")
    _warm_up(root)
    commit, versions = _commit(root), _versions()
    found = _recorded(file, commit, versions) if resume else {}
    chosen = [item for item in chosen if item.name not in found]
    recording = {
        "root": str(root),
        "commit": commit,
        "wanted": (wanted := len(found) + len(chosen)),
        "versions": versions,
        "artifacts": found,
    }
    failed = 0
    with tempfile.TemporaryDirectory(prefix="replay-") as scratch, _children() as running:
        waiting = list(reversed(chosen))
        while waiting or running:
            while waiting and len(running) < jobs:
                item = waiting.pop()
                place = Path(scratch) / _plain(item.name)
                running[_forked(item, place, hidden, keep)] = (item.name, place, time.perf_counter())
            child, status = os.wait()
            if child not in running:
                continue
            name, place, started = running.pop(child)
            found[name] = _outcome(place, status)
            shutil.rmtree(place, ignore_errors=True)
            failed += "error" in found[name]
            said = found[name].get("error", f"{len(found[name].get('files', {}))} files")
            seconds = time.perf_counter() - started
            print(f"{len(found)}/{wanted} {name}: {said[:200]} ({seconds:.1f} s)", flush=True)
            _write(file, recording)  # what is done is kept when the rest is interrupted
    print(f"{file}: {len(found)} artifacts of {recording['commit']}, {failed} did not compile")
    print(_validity(found))
    return 0


def _validity(artifacts: Mapping[str, Facts]) -> str:
    """How many ONNX files there are, and which of them onnx.checker does not take."""
    said = {
        f"{name}/{path}": facts["checker"]
        for name, artifact in artifacts.items()
        for path, facts in artifact.get("files", {}).items()
        if "checker" in facts
    }
    refused = [f"  {file}: {text}" for file, text in said.items() if text]
    return "\n".join([f"onnx.checker in full: {len(said)} ONNX files, {len(refused)} refused", *refused])


def _recorded(file: Path, commit: str, versions: Mapping[str, str]) -> dict[str, Facts]:
    """What an interrupted recording of the same code has; what failed is tried again."""
    if not file.exists():
        return {}
    earlier = _read(file)
    if (earlier["commit"], earlier["versions"]) != (commit, versions) or "changes" in commit:
        sys.exit(f"replay: {file} was recorded with other code or packages, or with changes; leave out --resume")
    return {name: facts for name, facts in earlier["artifacts"].items() if "error" not in facts}


def _is_chosen(name: str, only: Sequence[str]) -> bool:
    return not only or any(part[1:] == name if part.startswith("=") else part in name for part in only)


def _hidden(root: Path) -> dict[str, str]:
    """The folders that differ between two checkouts or machines; packages first, which may lie inside the checkout."""
    packages = dict.fromkeys([sysconfig.get_path("purelib"), str(Path(sysconfig.get_path("purelib")).resolve())])
    return {**dict.fromkeys(packages, "<packages>"), str(root): "<checkout>"}


def _warm_up(root: Path) -> None:
    """Compile something small once, so that no child has to import it all; all of it must come from ``root``."""
    import torch

    with tempfile.TemporaryDirectory(prefix="replay-") as scratch:
        _compile(torch.nn.Linear(2, 2), (torch.ones(1, 2),), {}, output=Path(scratch) / "bundle")
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        ours = name.partition(".")[0] in ("graphforge", "scripts")
        if ours and file and not Path(file).resolve().is_relative_to(root):
            sys.exit(f"replay: {name} comes from {file}, not from {root}")


@contextmanager
def _children() -> Iterator[dict[int, tuple[str, Path, float]]]:
    """The running children, which end with this process."""
    running: dict[int, tuple[str, Path, float]] = {}
    try:
        yield running
    finally:
        for child in running:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _forked(item: Item, place: Path, hidden: Mapping[str, str], keep: Path | None) -> int:
    """Compile in a child, whose memory goes with it; its facts, or what failed, lie in ``place``."""
    place.mkdir(parents=True)
    child = os.fork()
    if child:
        return child
    try:
        with (place / "log.txt").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        _seed()
        item.compile(place / "bundle")
        outcome: Facts = {"files": bundle_facts(place / "bundle", hidden)}
        if keep is not None:
            shutil.rmtree(keep / item.name, ignore_errors=True)
            shutil.copytree(place / "bundle", keep / item.name)
    except BaseException as error:  # what failed is the result
        said = _replaced(str(error), {**hidden, str(place): "<bundle>"})
        outcome = {"error": f"error: {type(error).__name__}: {said}"[:2000]}
    finally:
        (place / "facts.json").write_text(json.dumps(outcome))
        os._exit(0)


def _seed() -> None:
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def _outcome(place: Path, status: int) -> Facts:
    try:
        outcome: Facts = json.loads((place / "facts.json").read_text())
    except (OSError, ValueError):
        return {"error": f"error: the process died, status {status}"}
    return outcome


def _write(file: Path, recording: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(json.dumps(recording, indent=1) + "\n")
    os.replace(beside, file)


def _read(file: Path, only: Sequence[str] = ()) -> dict[str, Any]:
    """A recording, or those of its artifacts that are asked for."""
    recording: dict[str, Any] = json.loads(file.read_text())
    if only:
        artifacts = {name: facts for name, facts in recording["artifacts"].items() if _is_chosen(name, only)}
        recording |= {"artifacts": artifacts, "wanted": len(artifacts)}
    return recording


def _commit(root: Path) -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    revision = git("rev-parse", "--short", "HEAD")
    return f"{revision} with changes" if revision and git("status", "--porcelain") else revision or "no revision"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("torch", "torchvision", "timm", "transformers", "onnx", "onnx-ir", "onnxruntime", "numpy"):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


# -- compare -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """One file, or one artifact, that is not the same in both recordings.

    Attributes:
        artifact: its name.
        kind: ``changed``, ``moved`` (nothing but the lines of the checkout's own files that nodes name),
            ``only before`` or ``only after``.
        text: what differs, in one line.
    """

    artifact: str
    kind: str
    text: str


@dataclass(slots=True)
class _Tally:
    same: int = 0
    found: list[Difference] = field(default_factory=list)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[int, list[Difference]]:
    """How many files are the same in two recordings, and all that is not."""
    tally = _Tally()
    one, two = before["artifacts"], after["artifacts"]
    for name in dict.fromkeys([*one, *two]):
        if name not in two:
            tally.found.append(Difference(name, "only before", ""))
        elif name not in one:
            tally.found.append(Difference(name, "only after", ""))
        elif "error" in one[name] or "error" in two[name]:
            said = [facts.get("error", "compiles") for facts in (one[name], two[name])]
            if said[0] == said[1]:
                tally.same += 1
            else:
                tally.found.append(Difference(name, "changed", f"{said[0][:200]} -> {said[1][:200]}"))
        else:
            _compare_files(name, one[name]["files"], two[name]["files"], tally)
    return tally.same, tally.found


def _compare_files(name: str, one: Mapping[str, Facts], two: Mapping[str, Facts], tally: _Tally) -> None:
    for file in dict.fromkeys([*one, *two]):
        if file not in two:
            tally.found.append(Difference(name, "only before", file))
        elif file not in one:
            tally.found.append(Difference(name, "only after", file))
        elif one[file]["sha256"] == two[file]["sha256"]:
            tally.same += 1
        else:
            parts = _parts(one[file], two[file])
            kind = "moved" if parts == [_OWN_LINES] else "changed"
            tally.found.append(Difference(name, kind, f"{file}: {_described(one[file], two[file], parts)}"))


def _parts(one: Facts, two: Facts) -> list[str]:
    before, after = one.get("parts", {}), two.get("parts", {})
    return [part for part in dict.fromkeys([*before, *after]) if before.get(part) != after.get(part)]


def _described(one: Facts, two: Facts, parts: Sequence[str]) -> str:
    said = [f"{one['bytes']} -> {two['bytes']} bytes" if one["bytes"] != two["bytes"] else f"{one['bytes']} bytes"]
    if "operators" in one and "operators" in two:
        before, after = one["operators"], two["operators"]
        counts = [
            f"{name} {before.get(name, 0)} -> {after.get(name, 0)}"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
        nodes = f"{one['nodes']} -> {two['nodes']} nodes" if one["nodes"] != two["nodes"] else f"{one['nodes']} nodes"
        said.append(f"{nodes}: {', '.join(counts)}" if counts else f"{nodes}, operators as before")
    return "; ".join([*said, f"differs in {', '.join(parts)}" if parts else "differs in nothing that has a name"])


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Print what differs; 1 when anything changed or is missing on one side."""
    same, found = differences(before, after)
    for side, recording in (("before", before), ("after", after)):
        artifacts, wanted = recording["artifacts"], recording["wanted"]
        failed = [name for name, facts in artifacts.items() if "error" in facts]
        short = f", interrupted: {wanted} were wanted" if len(artifacts) < wanted else ""
        print(f"{side}: {recording['commit']}, {len(artifacts)} artifacts, {len(failed)} did not compile{short}")
    if before["versions"] != after["versions"]:
        print(f"the packages differ: {before['versions']} and {after['versions']}")
    for difference in found:
        print(f"{difference.kind}: {difference.artifact} {difference.text}".rstrip())
    kinds = Counter(difference.kind for difference in found)
    print(f"{same} files the same" + "".join(f", {count} {kind}" for kind, count in sorted(kinds.items())))
    if kinds["moved"]:
        print(f"moved: only the {_OWN_LINES} that nodes name as their source are others")
    return 1 if set(kinds) - {"moved"} else 0


# -- against -----------------------------------------------------------------------------------------------------------


def against(revision: str, only: Sequence[str], jobs: int, keep: Path | None) -> int:
    """Record another revision and this checkout, and compare; changed bundles of both are kept where that is wanted."""
    out = HERE / "out" / "replay"
    recordings = []
    with _worktree(revision) as other:
        sides = {"before": other, "after": HERE}
        for side, root in sides.items():
            _in_process(root, out / f"{side}.json", only, jobs, None)
            recordings.append(_read(out / f"{side}.json"))
        changed = {item.artifact for item in differences(*recordings)[1] if item.kind != "moved"}
        if keep is not None:
            for (side, root), recording in zip(sides.items(), recordings, strict=True):
                # compiled once more: all bundles of both would fill the disk
                if names := [f"={name}" for name in recording["artifacts"] if name in changed]:
                    _in_process(root, out / "kept.json", names, jobs, keep.absolute() / side)
    return compare(*recordings)


@contextmanager
def _worktree(revision: str) -> Iterator[Path]:
    """The files of a revision in a folder that vanishes again."""
    git = ["git", "-C", str(HERE)]
    folder = Path(tempfile.mkdtemp(prefix="replay-")).resolve()
    checkout = folder / "checkout"
    try:
        done = subprocess.run(
            [*git, "worktree", "add", "--quiet", "--detach", str(checkout), revision],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"replay: {done.stderr.strip()}")
        yield checkout
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", str(checkout)], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _in_process(root: Path, file: Path, only: Sequence[str], jobs: int, keep: Path | None) -> None:
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "record", str(file), "--root", str(root)]
    command += ["--jobs", str(jobs), *(["--only", ",".join(only)] if only else [])]
    command += ["--keep", str(keep)] if keep is not None else []
    with subprocess.Popen(command, env=_environment(root)) as process:
        try:
            failed = process.wait()
        except KeyboardInterrupt:
            process.terminate()  # it ends its own children
            raise
    if failed:
        sys.exit(failed)


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


# -- the command line --------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument(
        "--only", default="", metavar="NAME,...", help="artifacts whose name holds one of these; =NAME: that one"
    )
    common = argparse.ArgumentParser(add_help=False, parents=[chosen])
    common.add_argument("--jobs", type=int, default=1, help="processes at a time")
    recording = verbs.add_parser("record", parents=[common], help="compile and write the hashes to a file")
    recording.add_argument("file", type=Path)
    recording.add_argument("--root", type=Path, default=HERE, help="checkout whose code compiles; this one by default")
    recording.add_argument("--keep", type=Path, help="folder for all bundles; by default they are dropped")
    recording.add_argument("--resume", action="store_true", help="keep what the file has, of the same code")
    comparing = verbs.add_parser(
        "compare", parents=[chosen], help="what differs between two files; exit code 1 if anything does"
    )
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    other = verbs.add_parser("against", parents=[common], help="record a revision and this checkout, and compare")
    other.add_argument("revision")
    other.add_argument("--keep", type=Path, help="folder for the bundles that changed, before and after")
    options = parser.parse_args(arguments)

    only = [name for name in options.only.split(",") if name]
    if options.verb == "compare":
        return compare(*(_read(file, only) for file in (options.before, options.after)))
    if options.verb == "against":
        return against(options.revision, only, options.jobs, options.keep)
    root = options.root.resolve()
    if os.environ.get("PYTHONPATH") != str(root) or not sys.flags.safe_path:
        command = [sys.executable, "-P", str(Path(__file__).resolve()), *(arguments or sys.argv[1:])]
        os.execve(sys.executable, command, _environment(root))  # with no other checkout on the path
    return record(options.file, root, only, options.jobs, options.keep, options.resume)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
