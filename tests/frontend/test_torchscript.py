"""TorchScript modules: scripted and traced, control flow on sizes, lists, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graphforge.call import input_tree
from graphforge.errors import CaptureError, GraphForgeError
from graphforge.frontend.capture import capture
from graphforge.frontend.load import load_model
from graphforge.frontend.torchscript import interpret
from graphforge.spec import DimRange
from tests.frontend.helpers import lower_and_compare


class Pieces(torch.nn.Module):
    """Lists, loops over modules, branches on sizes, early shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(6, 6) for _ in range(3)])
        self.norm = torch.nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor, flip: bool = False) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        for layer in self.layers:
            x = torch.relu(layer(x))
            kept.append(x)
        if flip:
            kept = kept[::-1]
        y = torch.cat(kept, dim=1).view(x.size(0), -1, 6).mean(dim=1)
        for step in range(2):
            y = self.norm(y) * float(step + 1) + x.shape[1] // 2
        return y


class State(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count = self.count + 1  # type: ignore[has-type]
        return x + self.count  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("form", ["script", "trace"])
def test_the_interpreter_computes_what_the_script_computes(form: str, flip: bool) -> None:
    torch.manual_seed(0)
    module = Pieces().eval()
    x = torch.randn(4, 6)
    script = torch.jit.script(module) if form == "script" else torch.jit.trace(module, (x,))
    arguments = (x, flip) if form == "script" else (x,)
    with torch.no_grad():
        torch.testing.assert_close(interpret(script)(*arguments), script(*arguments), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_module_keeps_its_batch_dynamic() -> None:
    script = torch.jit.script(Pieces().eval())
    tree = input_tree(script, (torch.randn(4, 6),), {})
    captured = capture(script, tree, tree.spec().with_dynamic({"x": {0: DimRange("batch", 1, 8)}}))
    output = captured.graph_module.graph.find_nodes(op="output")[0]
    (result,) = output.args[0]
    assert str(result.meta["val"].shape[0].node.expr) in {str(symbol) for symbol in captured.symbols}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_script_that_keeps_state_is_refused() -> None:
    script = torch.jit.script(State())
    tree = input_tree(script, (torch.randn(3),), {})
    with pytest.raises((GraphForgeError, CaptureError), match="writes to its attribute 'count'"):
        capture(script, tree, tree.spec())


class Halves(torch.nn.Module):
    def __init__(self, *, baked: bool) -> None:
        super().__init__()
        self.baked = baked

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = int(x.shape[0]) if self.baked else x.shape[0]
        return x.reshape(rows * 2, 3)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:Converting a tensor")
@pytest.mark.parametrize("baked", [False, True])
def test_a_traced_module_keeps_its_sizes_or_is_refused(baked: bool) -> None:
    script = torch.jit.trace(Halves(baked=baked), (torch.randn(4, 6),), check_trace=False)
    tree = input_tree(script, (torch.randn(4, 6),), {})
    shapes = tree.spec().with_dynamic({"x": {0: DimRange("batch", 1, 8)}})
    if not baked:
        assert capture(script, tree, shapes).method == "trace"
        return
    with pytest.raises(CaptureError, match="reads dim 'batch' of input 'x' as the number 4"):
        capture(script, tree, shapes)


def test_what_torch_save_wrote_is_told_apart_from_a_broken_file(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    (tmp_path / "broken.pt").write_text("not an archive")
    with pytest.raises(
        GraphForgeError, match=r"whole\.pt' is not a TorchScript file, but what torch\.save wrote"
    ) as caught:
        load_model(str(tmp_path / "whole.pt"))
    assert caught.value.notes[0] == (
        "torch.save(model) keeps no code that could be captured: name the code that builds the module"
    )
    with pytest.raises(GraphForgeError, match="not a ZIP archive") as caught:
        load_model(str(tmp_path / "broken.pt"))
    assert "miniz" not in str(caught.value)


@torch.jit.script
def _halved(x: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        x = x / 2
    return x + x.shape[0]


class _Whole(torch.nn.Module):
    """A model in Python, with scripts in it: a scripted part, a method of one, a traced part, a function."""

    def __init__(self) -> None:
        super().__init__()
        self.scripted = torch.jit.script(_Branching())
        self.traced = torch.jit.trace(torch.nn.Linear(4, 4), (torch.rand(2, 4),))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.traced(self.scripted(x))
        return _halved(self.scripted.doubled(x), 3).mean(0)  # type: ignore[no-any-return]


class _Branching(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 1000:
            x = x + 1
        return self.linear(x).reshape(x.shape[0] * 4).view(-1, 4)  # type: ignore[no-any-return]

    @torch.jit.export
    def doubled(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + torch.arange(x.shape[0]).unsqueeze(1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["export", "trace"])
def test_scripts_inside_a_model_keep_sizes_dynamic(method: str) -> None:
    others = [(torch.rand(rows, 4),) for rows in (1, 2, 9)]
    called = vars(torch._C.ScriptFunction)["__call__"]
    lower_and_compare(
        _Whole().eval(), (torch.rand(3, 4),), dynamic={"x": {0: (1, 9)}}, other_inputs=others, method=method
    )
    assert "__call__" not in vars(torch.jit.ScriptModule)
    assert vars(torch._C.ScriptFunction)["__call__"] is called
