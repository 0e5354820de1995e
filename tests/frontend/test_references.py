"""Functions are found, exchanged and put back wherever a model holds them, and so are those of its own file."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.frontend.load import load_model
from graphforge.frontend.references import MAX_ITEMS, references
from graphforge.frontend.replacing import substituting
from graphforge.frontend.substitution import Substitution

NET = '''
import functools
import torch

def pick(x, limit=0.5):
    """A Python loop over data: nothing captures this."""
    kept = [row for row in x if float(row.sum()) > limit]
    return torch.stack(kept) if kept else x[:0]

def other(x):
    return x + 1

CHOICES = {"pick": pick, "other": other}
STEPS = [other, pick]

def keeping(function):
    @functools.wraps(function)
    def call(x):
        return function(x)
    return call

wrapped = keeping(pick)

class Base(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

class Global(Base):
    def forward(self, x):
        return pick(self.linear(x))

class Method(Base):
    def choose(self, x):
        return pick(x)
    def forward(self, x):
        return self.choose(self.linear(x))

class InDict(Base):
    def forward(self, x):
        return CHOICES["pick"](self.linear(x))

class InList(Base):
    def forward(self, x):
        return STEPS[-1](self.linear(x))

class Attribute(Base):
    def __init__(self):
        super().__init__()
        self.function = pick
    def forward(self, x):
        return self.function(self.linear(x))

class Nested(Base):
    def __init__(self):
        super().__init__()
        self.table = {"steps": [(other, pick)]}
    def forward(self, x):
        return self.table["steps"][0][1](self.linear(x))

class Partial(Base):
    def __init__(self):
        super().__init__()
        self.function = functools.partial(pick, limit=0.25)
    def forward(self, x):
        return self.function(self.linear(x))

class Default(Base):
    def forward(self, x, function=pick):
        return function(self.linear(x))

class KeywordDefault(Base):
    def apply_it(self, x, *, function=pick):
        return function(x)
    def forward(self, x):
        return self.apply_it(self.linear(x))

class Wrapped(Base):
    def forward(self, x):
        return wrapped(self.linear(x))

class Bound(Base):
    def __init__(self):
        super().__init__()
        self.choose_by = self.choose
    def choose(self, x):
        return pick(x)
    def forward(self, x):
        return self.choose_by(self.linear(x))

class Helper:
    def __init__(self):
        self.function = pick

class InObject(Base):
    def __init__(self):
        super().__init__()
        self.helper = Helper()
    def forward(self, x):
        return self.helper.function(self.linear(x))

def closure():
    function = pick
    class Closure(Base):
        def forward(self, x):
            return function(self.linear(x))
    return Closure()

def local():
    def inner(x):
        return pick(x)
    class Local(Base):
        def forward(self, x):
            return inner(self.linear(x))
    return Local()
'''


def tensor_pick(x: Tensor, limit: float = 0.5) -> Tensor:
    return x[x.sum(1) > limit]


def method_pick(self: nn.Module, x: Tensor) -> Tensor:
    return x[x.sum(1) > 0.5]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("references") / "gf_net.py"
    file.write_text(NET)
    return file


@pytest.mark.parametrize(
    ("name", "path", "function"),
    [
        ("Global", "gf_net.pick", tensor_pick),
        ("Global", "gf_net.py:pick", tensor_pick),
        ("Method", "gf_net.Method.choose", method_pick),
        ("Method", "gf_net.py:Method.choose", method_pick),
        ("InDict", "gf_net.pick", tensor_pick),
        ("InList", "gf_net.pick", tensor_pick),
        ("Attribute", "gf_net.pick", tensor_pick),
        ("Nested", "gf_net.pick", tensor_pick),
        ("Partial", "gf_net.pick", tensor_pick),
        ("Default", "gf_net.pick", tensor_pick),
        ("KeywordDefault", "gf_net.pick", tensor_pick),
        ("Wrapped", "gf_net.wrapped", tensor_pick),
        ("Wrapped", "gf_net.pick", tensor_pick),
        ("Bound", "gf_net.Bound.choose", method_pick),
        ("InObject", "gf_net.pick", tensor_pick),
        ("closure", "gf_net.pick", tensor_pick),
        ("local", "gf_net.local.inner", tensor_pick),
        ("local", "gf_net.py:inner", tensor_pick),
    ],
)
def test_found_where_the_model_holds_it_and_put_back(net: Path, name: str, path: str, function: Any) -> None:
    torch.manual_seed(0)
    module = load_model(f"{net}:{name}").module
    assert module is not None
    x = torch.randn(6, 4)
    with torch.no_grad():
        expected = module.eval()(x)
        before = held(module)
        with substituting([Substitution(path, function)], module) as applied:
            torch.testing.assert_close(module(x), expected)
        assert applied[0].calls == 1
        with pytest.raises(ZeroDivisionError), substituting([Substitution(path, lambda *_, **__: 1 // 0)], module):
            module(x)
        after = held(module)
    assert [key for key in before if before[key] is not after[key]] == []
    assert before.keys() == after.keys()


def held(module: nn.Module) -> dict[tuple[int, str], Any]:
    """Every callable in every place that the model reaches."""
    return {(id(place.owner), str(place.key)): place.value for place in references(module).places}


def test_a_model_of_an_earlier_state_of_its_file_is_found_too(tmp_path: Path) -> None:
    file = tmp_path / "gf_edited.py"
    file.write_text(NET)
    old = load_model(f"{file}:Global").module
    file.write_text(NET.replace("x + 1", "x + 2"))
    new = load_model(f"{file}:InDict").module
    for module in (old, new):
        assert module is not None
        with substituting([Substitution("gf_edited.pick", tensor_pick)], module) as applied, torch.no_grad():
            module(torch.randn(6, 4))
        assert applied[0].calls == 1


def test_a_function_of_torch_in_a_table_of_activations(tmp_path: Path) -> None:
    table = {"gelu": nn.functional.gelu, "relu": torch.relu}

    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.activation = table["gelu"]

        def forward(self, x: Tensor) -> Tensor:
            return self.activation(x) + table["gelu"](x)

    quick = Substitution("torch.nn.functional.gelu", lambda x: nn.functional.gelu(x, approximate="tanh"))
    model = Chosen().eval()
    bundle = graphforge.compile(
        model, torch.randn(3), substitutes=[quick], tolerances=loose(), output=tmp_path / "bundle"
    )
    (record,) = bundle.manifest["capture"]["substitutions"]
    assert record["calls"] == 2
    assert table["gelu"] is model.activation is nn.functional.gelu


def loose() -> Any:
    from graphforge.verify.tolerance import Tolerances

    return Tolerances().loosen(because="the other form of gelu", atol=1e-2)


def test_what_is_nowhere_names_what_the_model_has(net: Path) -> None:
    module = load_model(f"{net}:Global").module
    for path, message in {
        "gf_net.pikc": "gf_net has no 'pikc'",
        "gf_net.py:pikc": "gf_net.py has no 'pikc'",
        "gf_absent.pick": "there is no module 'gf_absent'",
        "gf_absent.py:pick": "no file gf_absent.py was loaded",
    }.items():
        with (
            pytest.raises(GraphForgeError, match=message) as caught,
            substituting([Substitution(path, tensor_pick)], module),
        ):
            pass
        assert "pick" in str(caught.value.notes)


def test_the_walk_is_bounded_and_runs_no_property() -> None:
    class Wild(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large = [abs] * (MAX_ITEMS + 1)
            self.itself = self.__dict__

        @property
        def loud(self) -> int:
            raise RuntimeError("asked")

        def forward(self, x: Tensor) -> Tensor:
            return x

    found = references(Wild())
    assert found.complete
    assert not [place for place in found.places if place.value is abs]


def test_a_long_chain_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphforge.frontend import references as module

    monkeypatch.setattr(module, "MAX_OBJECTS", 50)
    chain: list[Any] = []
    for _ in range(100):
        chain = [chain, functools.partial(tensor_pick)]

    model = nn.ReLU()
    model.chain = chain  # type: ignore[assignment]
    assert not module.references(model).complete


def test_python_modules_are_left_alone(net: Path) -> None:
    module = load_model(f"{net}:Global").module
    before = {name: dict(vars(one)) for name, one in sys.modules.items() if name.startswith("gf_")}
    with substituting([Substitution("gf_net.pick", tensor_pick)], module):
        pass
    assert before == {name: dict(vars(one)) for name, one in sys.modules.items() if name.startswith("gf_")}


class _Lying(type):
    """A metaclass whose classes have a descriptor for a module name, as some of timm's do."""

    @property
    def __module__(cls) -> Any:  # type: ignore[override]
        return type.__dict__["__module__"]


class _Odd(metaclass=_Lying):
    pass


class _Refusing:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("computed on demand, and not today")


def _original(x: Tensor) -> Tensor:
    return x


class AmongOddObjects(nn.Module):
    """Holds objects that cannot be looked at, and a function behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.odd = _Odd()
        self.refusing = _Refusing()
        self.held = [_original]

    def forward(self, x: Tensor) -> Tensor:
        return self.held[0](x)


def test_objects_that_cannot_be_looked_at_are_left_out() -> None:
    found = references(AmongOddObjects())
    assert any(place.value is _original for place in found.places)
