"""Archives of torch that would run code when they are read are refused, and what torch.export.save writes is not."""

from __future__ import annotations

import enum
import io
import json
import os
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.frontend.archives import _damage
from graphforge.prepare import _module_of


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor]) -> dict[str, Any]:
        y = self.linear(x) + more["a"]
        return {"flat": y.reshape(-1), "pair": (y[: x.shape[0] // 2], y.sum())}


def _saved(path: Path) -> Path:
    batch = 2 * torch.export.Dim("half", min=2, max=8)
    inputs = (torch.randn(4, 4), {"a": torch.randn(4, 4)})
    torch.export.save(torch.export.export(Net(), inputs, dynamic_shapes=({0: batch}, {"a": {0: batch}})), path)
    return path


def _records(path: Path) -> dict[str, bytes]:
    reader = torch._C.PyTorchFileReader(str(path))
    return {name: reader.get_record(name) for name in reader.get_all_records()}


def _write(path: Path, records: dict[str, bytes]) -> None:
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, content in records.items():
        if name not in (".data/version", "byteorder", ".data/serialization_id", "version"):
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()


def _edited(path: Path, edit: Callable[[Any], None], record: str = "models/model.json") -> None:
    records = _records(path)
    document = json.loads(records[record])
    edit(document)
    records[record] = json.dumps(document).encode()
    _write(path, records)


def test_what_torch_saves_is_read(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pt2")
    bundle = graphforge.compile(path, output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"]


class Colour(enum.Enum):
    RED = 1


class Containers(torch.nn.Module):
    def forward(self, x: OrderedDict[str, torch.Tensor], y: list[torch.Tensor], *, scale: float = 2.0) -> Any:
        out: defaultdict[str, torch.Tensor] = defaultdict(int)  # type: ignore[arg-type]
        out["sum"] = x["p"] * scale
        for one in y:
            out["sum"] = out["sum"] + one.clamp(min=-1, max=float("inf"))
        return out


def test_containers_and_conditions_of_honest_programs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    x, y = torch.ones(2, 3), torch.ones(2, 3)
    torch.export.save(torch.export.export(Containers(), (OrderedDict(p=x), [y, y])), path)
    graphforge.load_model(str(path))


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def _node(document: Any) -> Any:
    return document["graph_module"]["graph"]["nodes"][0]


def _with_pickle(record: str) -> Callable[[Path, Path], None]:
    def edit(path: Path, canary: Path) -> None:
        buffer = io.BytesIO()
        torch.save(Touch(canary), buffer)
        _write(path, {**_records(path), record: buffer.getvalue()})

    return edit


def _with_text(change: Callable[[Any, str], None], text: str) -> Callable[[Path, Path], None]:
    return lambda path, canary: _edited(path, lambda document: change(document, text.replace("CANARY", str(canary))))


def _target(document: Any, text: str) -> None:
    _node(document)["target"] = text


def _expression(document: Any, text: str) -> None:
    document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = text


def _guard(document: Any, text: str) -> None:
    document["guards_code"] = [text]


def _input_name(document: Any, text: str) -> None:
    document["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = text


def _container(document: Any, text: str) -> None:
    document["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = text


def _argument_name(document: Any, text: str) -> None:
    document["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = [text]


def _opaque_constant(path: Path, canary: Path) -> None:
    records = _records(path)
    config = {"config": {"c": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}}}
    records["data/constants/model_constants_config.json"] = json.dumps(config).encode()
    records["data/constants/opaque_obj_0"] = pickle.dumps(Touch(canary))
    _write(path, records)


def _pickled_weight(path: Path, canary: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Touch(canary), buffer)
    records = _records(path)
    config = json.loads(records["data/weights/model_weights_config.json"])
    config["config"]["linear.weight"]["use_pickle"] = True
    records["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    records["data/weights/weight_0"] = buffer.getvalue()
    _write(path, records)


def _library(path: Path, canary: Path) -> None:
    _write(path, {**_records(path), "data/aotinductor/model/model.so": b"\x7fELF"})


HOSTILE: dict[str, Callable[[Path, Path], None]] = {
    "sample inputs": _with_pickle("data/sample_inputs/model.pt"),
    "old weights": _with_pickle("data/weights/model.pt"),
    "weight": _pickled_weight,
    "constant": _opaque_constant,
    "library": _library,
    "call of the system": _with_text(_target, "torch.os.mkdir"),
    "library operator": _with_text(_target, "torch.ops.load_library"),
    "file operator": _with_text(_target, "torch.ops.aten.from_file.default"),
    "attribute of an operator": _with_text(_target, "torch.ops.aten.add.Tensor.py_impl"),
    "method caller": _with_text(_target, "_operator.methodcaller"),
    "expression": _with_text(_expression, "__import__('os').mkdir('CANARY')"),
    "expression in an argument": _with_text(_expression, "Max(1, \"__import__('os').mkdir('CANARY')\")"),
    "expression without end": _with_text(_expression, "9**9**9**9"),
    "guard": _with_text(_guard, "__import__('os').mkdir('CANARY') is None"),
    "guard by attribute": _with_text(_guard, "L['x'].size.__globals__"),
    "name of an input": _with_text(_input_name, "x=__import__('os').mkdir('CANARY')"),
    "name of an argument": _with_text(_argument_name, "x=__import__('os').mkdir('CANARY')"),
    "factory": _with_text(
        _container,
        json.dumps(
            [
                1,
                {
                    "type": "collections.defaultdict",
                    "context": {
                        "default_factory_module": "antigravity",
                        "default_factory_name": "x",
                        "dict_context": [],
                    },
                    "children_spec": [],
                },
            ]
        ),
    ),
    "member": _with_text(
        _container,
        json.dumps([1, {"type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "antigravity:x"}]'}]),
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_that_would_run_code_is_refused(tmp_path: Path, kind: str) -> None:
    path, canary = _saved(tmp_path / "net.pt2"), tmp_path / "canary"
    HOSTILE[kind](path, canary)
    with pytest.raises(GraphForgeError, match="would run code when it is read") as refused:
        graphforge.load_model(str(path))
    assert "trust_pickle=True" in refused.value.notes[0]
    assert not canary.exists()


def test_trust_reads_it_all_the_same(tmp_path: Path) -> None:
    path, canary = _saved(tmp_path / "net.pt2"), tmp_path / "canary"
    HOSTILE["sample inputs"](path, canary)
    with pytest.raises(GraphForgeError, match="is not an exported program"):
        graphforge.load_model(str(path), trust_pickle=True)
    assert canary.exists()


def test_a_record_that_grows_is_refused(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/archive_format", b"pt2")
        archive.writestr("bomb/models/model.json", b"0" * 10_000_000)
    with pytest.raises(GraphForgeError, match="grows from"):
        graphforge.load_model(str(path))


class Writes(torch.nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x


def test_a_script_that_reaches_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(Writes(str(tmp_path / "canary"))), path)
    with pytest.raises(GraphForgeError, match="its script calls save, which reads or writes files"):
        graphforge.load_model(str(path))
    assert graphforge.load_model(str(path), trust_pickle=True).module is not None
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    assert graphforge.load_model(str(path)).module is not None


def test_a_stack_that_is_not_text_names_no_line(tmp_path: Path) -> None:
    def edit(document: Any) -> None:
        for node in document["graph_module"]["graph"]["nodes"]:
            node["metadata"]["stack_trace"] = 7

    path = _saved(tmp_path / "net.pt2")
    _edited(path, edit)
    bundle = graphforge.compile(path, output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"]


def test_a_version_that_is_not_text_is_damage(tmp_path: Path) -> None:
    import zipfile

    whole, path = tmp_path / "net.pt", tmp_path / "damaged.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(3, 2), torch.rand(2, 3)), str(whole))
    with zipfile.ZipFile(whole) as there, zipfile.ZipFile(path, "w") as made:
        for name in there.namelist():
            made.writestr(name, b"\xac\x80" if name.endswith("/version") else there.read(name))
    with pytest.raises(GraphForgeError, match="is damaged: it holds text that is not UTF-8"):
        graphforge.load_model(str(path))


def test_what_torchs_reader_says_in_other_kinds_of_errors_is_told_all_the_same() -> None:
    with (
        pytest.raises(GraphForgeError, match=r"is not an archive of torch, or damaged: stoull"),
        _damage(Path("m.pt2")),
    ):
        raise IndexError("stoull")  # of C++: a number in its version that is none

    class Damaged:
        def module(self) -> None:
            raise TypeError("sequence item 1: expected str instance, bool found")

    with pytest.raises(GraphForgeError, match=r"does not become a module: TypeError: sequence item 1"):
        _module_of(Damaged())
