"""Random PyTorch programs: source text that eager runs at every promised size, and ways to make one shorter."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from scripts.fuzz_values import NoChoiceError, Values

__all__ = ["Program", "draw_program", "module_of", "shorter"]

_FLOATS = (torch.float32, torch.float64, torch.float16)
_INTEGERS = (torch.int64, torch.int32, torch.uint8, torch.int16)
_LIMIT = 4_000  # elements of a value
_LARGEST = 1e3  # magnitude of a value: beyond it rounding says more than the program
_TRIES = 60


@dataclass(frozen=True, slots=True)
class Program:
    """A program: its text and how it is called.

    Attributes:
        inputs: name -> (dtype, sizes); a size that is text names a dynamic dim.
        weights: name -> (dtype, sizes).
        lines: statements of forward.
        outputs: names that are returned.
        dims: name of a dynamic dim -> (lowest, highest) promised size.
        example: size of each dynamic dim in the example.
        seed: of everything that is drawn.
    """

    inputs: dict[str, tuple[str, tuple[int | str, ...]]]
    weights: dict[str, tuple[str, tuple[int, ...]]]
    lines: tuple[str, ...]
    outputs: tuple[str, ...]
    dims: dict[str, tuple[int, int]]
    example: dict[str, int]
    seed: int

    def source(self) -> str:
        """A module in a file of its own, with ``case()`` and ``others()``."""
        shapes = {name: self.dynamic_axes(name) for name in self.inputs}
        dynamic = {name: axes for name, axes in shapes.items() if axes}
        body = "\n        ".join((*self.lines, f"return {', '.join(self.outputs)}"))
        weights = "".join(
            f"\n        self.{name} = {_drawn(dtype, sizes, self.seed + 7 * number + 1)}"
            for number, (name, (dtype, sizes)) in enumerate(self.weights.items())
        )
        calls = ",\n        ".join(f"({self._call(sizes)},)" for sizes in self.all_sizes())
        return (
            "import torch\nimport torch.nn.functional as F\n\n"
            f"DYNAMIC = {dynamic}\n\n\n"
            "def draw(dtype, sizes, seed):\n"
            "    found = torch.randn(sizes, generator=torch.Generator().manual_seed(seed))\n"
            "    if dtype == torch.bool:\n        return found > 0\n"
            "    return found.to(dtype) if dtype.is_floating_point else (found * 3).abs().to(dtype)\n\n\n"
            "class Program(torch.nn.Module):\n    def __init__(self):\n        super().__init__()"
            f"{weights}\n\n    def forward(self, {', '.join(self.inputs)}):\n        {body}\n\n\n"
            f"def case():\n    return Program().eval(), ({self._call(self.example)},)\n\n\n"
            f"def others():\n    return [\n        {calls},\n    ]\n"
        )

    def dynamic_axes(self, name: str) -> dict[int, tuple[int, int]]:
        """Axis -> promised sizes of an input."""
        return {axis: self.dims[size] for axis, size in enumerate(self.inputs[name][1]) if isinstance(size, str)}

    def all_sizes(self) -> Iterator[dict[str, int]]:
        """Every promised combination of sizes."""
        ranges = [range(low, high + 1) for low, high in self.dims.values()]
        for sizes in itertools.product(*ranges):
            yield dict(zip(self.dims, sizes, strict=True))

    def _call(self, sizes: dict[str, int]) -> str:
        return ", ".join(
            _drawn(dtype, tuple(sizes[size] if isinstance(size, str) else size for size in shape), self.seed + number)
            for number, (dtype, shape) in enumerate(self.inputs.values())
        )


def _drawn(dtype: str, sizes: tuple[int, ...], seed: int) -> str:
    return f"draw(torch.{dtype}, {sizes}, {seed})"


def module_of(program: Program) -> dict[str, Any]:
    """The names that the program's source defines."""
    names: dict[str, Any] = {}
    exec(compile(program.source(), "<program>", "exec"), names)
    return names


def draw_program(seed: int) -> Program:
    """A program of up to a dozen statements; the same for the same seed."""
    rng = random.Random(seed)
    dims = {"n": rng.choice(((1, 6), (2, 7), (2, 9), (3, 8)))} if rng.random() < 0.8 else {}
    if dims and rng.random() < 0.35:
        dims["m"] = rng.choice(((2, 5), (1, 4)))
    example = {name: rng.randint(low, high) for name, (low, high) in dims.items()}
    names = ("x", "y", "z")[: rng.choice((1, 1, 2, 2, 3))]
    base = _shape(rng, dims)
    inputs: dict[str, tuple[str, tuple[int | str, ...]]] = {}
    for name in names:
        dtype = rng.choice(("float32",) * 7 + ("float64", "int64", "int32", "bool"))
        inputs[name] = (dtype, base if rng.random() < 0.6 else _shape(rng, dims))
    program = Program(inputs, {}, (), (), dims, example, seed)
    if not any(isinstance(size, str) for _, shape in inputs.values() for size in shape):
        program = replace(program, dims={}, example={})
    used = {size for _, shape in inputs.values() for size in shape if isinstance(size, str)}
    program = replace(
        program,
        dims={name: span for name, span in program.dims.items() if name in used},
        example={name: size for name, size in program.example.items() if name in used},
    )
    wanted = rng.randint(2, 10)
    for _ in range(_TRIES):
        if len(program.lines) >= wanted:
            break
        longer = _with_a_line(program, rng)
        if longer is not None:
            program = longer
    values = [line.split(" = ")[0] for line in program.lines if " = " in line and line.startswith("v")]
    last = values[-1:] or list(inputs)[:1]
    more = [value for value in dict.fromkeys(values[:-1]) if rng.random() < 0.3]
    return replace(program, outputs=tuple(dict.fromkeys([*more, *last])))


def _shape(rng: random.Random, dims: dict[str, tuple[int, int]]) -> tuple[int | str, ...]:
    rank = rng.choice((1, 2, 2, 3, 3, 3, 4, 4))
    shape: list[int | str] = [rng.choice((1, 2, 3, 4, 5, 6)) for _ in range(rank)]
    for name in dims:
        if rng.random() < 0.8:
            shape[rng.randrange(rank)] = name
    return tuple(shape)


def run(program: Program) -> list[dict[str, torch.Tensor]] | None:
    """The values by name at every promised size, None when a statement fails or a value cannot be compared."""
    found = []
    weights = {
        name: _tensor(dtype, sizes, program.seed + 7 * number + 1)
        for number, (name, (dtype, sizes)) in enumerate(program.weights.items())
    }
    code = compile("\n".join(program.lines), "<program>", "exec")
    for sizes in program.all_sizes():
        values: dict[str, Any] = {"torch": torch, "F": F, "self": _Weights(weights)}
        for number, (name, (dtype, shape)) in enumerate(program.inputs.items()):
            real = tuple(sizes[size] if isinstance(size, str) else size for size in shape)
            values[name] = _tensor(dtype, real, program.seed + number)
        try:
            with torch.no_grad():
                exec(code, values)
        except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError, AssertionError):
            return None
        tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
        for value in tensors.values():
            if value.numel() > _LIMIT or value.is_complex():
                return None
            if value.is_floating_point() and value.numel() and not bool((value.abs() < _LARGEST).all()):
                return None
        found.append(tensors)
    return found


class _Weights:
    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.__dict__.update({name: value.clone() for name, value in weights.items()})


def _tensor(dtype: str, sizes: tuple[int, ...], seed: int) -> torch.Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    found = torch.randn(sizes, generator=torch.Generator().manual_seed(seed))
    if kind == torch.bool:
        return found > 0
    return found.to(kind) if kind.is_floating_point else (found * 3).abs().to(kind)


def shorter(program: Program) -> Iterator[Program]:
    """Smaller programs that eager still runs: fewer outputs, fewer statements, fewer inputs, fixed dims."""
    for output in program.outputs if len(program.outputs) > 1 else ():
        yield replace(program, outputs=(output,))
    for position in reversed(range(len(program.lines))):
        lines = program.lines[:position] + program.lines[position + 1 :]
        fewer = replace(program, lines=lines)
        try:
            values = run(fewer)
        except NameError:  # a later statement needs the one left out
            continue
        if values is not None and all(set(program.outputs) <= set(names) for names in values):
            yield fewer
    for line in reversed(program.lines):
        name = line.split(" = ")[0]
        if line.startswith("v") and " = " in line and name not in program.outputs:
            yield replace(program, outputs=(name,))
    text = " ".join(program.lines) + " ".join(program.outputs)
    for name in program.inputs:
        if len(program.inputs) > 1 and name not in text.replace("max", "").replace("exp", ""):
            yield replace(program, inputs={key: value for key, value in program.inputs.items() if key != name})
    for dim, size in program.example.items():
        fixed = {
            name: (dtype, tuple(size if axis == dim else axis for axis in shape))
            for name, (dtype, shape) in program.inputs.items()
        }
        yield replace(
            program,
            inputs=fixed,
            dims={key: span for key, span in program.dims.items() if key != dim},
            example={key: value for key, value in program.example.items() if key != dim},
        )


class _Draw(Values):
    """What a statement is drawn from: the values so far, at every size."""

    def __init__(self, program: Program, values: list[dict[str, torch.Tensor]], rng: random.Random) -> None:
        super().__init__(values, rng)
        self.program = program
        self.weights = dict(program.weights)

    def pick(
        self, kind: str = "float", least: int = 0, most: int = 9, where: Callable[[str], bool] = lambda _: True
    ) -> str:
        """The name of a value of this kind and rank; later ones more often."""
        fits = []
        for name, value in self.values[0].items():
            right = {
                "float": value.dtype in _FLOATS,
                "single": value.dtype == torch.float32,
                "integer": value.dtype in _INTEGERS,
                "bool": value.dtype == torch.bool,
                "number": value.dtype != torch.bool,
                "any": True,
            }[kind]
            if right and least <= value.dim() <= most and name not in self.weights and where(name):
                fits.append(name)
        return self.choose(fits)

    def weight(self, like: str, *sizes: int) -> str:
        """A new weight with the element type of a value."""
        name = f"w{len(self.weights)}"
        dtype = str(self.values[0][like].dtype).removeprefix("torch.")
        self.weights[name] = (dtype, sizes)
        return f"self.{name}"

    def partner(self, name: str) -> str:
        """A value that broadcasts with this one and has its element type."""
        dtype = self.values[0][name].dtype

        def fits(other: str) -> bool:
            if self.values[0][other].dtype != dtype:
                return False
            try:
                return all(torch.broadcast_shapes(v[name].shape, v[other].shape) is not None for v in self.values)
            except RuntimeError:
                return False

        return self.pick("any", where=fits)


def _with_a_line(program: Program, rng: random.Random) -> Program | None:
    values = run(program)
    if values is None:
        return None
    draw = _Draw(program, values, rng)
    group = rng.choices(tuple(_GROUPS), weights=tuple(weight for weight, _ in _GROUPS.values()))[0]
    try:
        text = rng.choice(_GROUPS[group][1])(draw)
    except NoChoiceError:
        return None
    name = f"v{len(program.lines)}"
    line = text.replace("$", name) if "$" in text else f"{name} = {text}"
    longer = replace(program, lines=(*program.lines, line), weights=draw.weights)
    return longer if run(longer) is not None else None


def _unary(form: str, kind: str = "float", least: int = 0) -> Callable[[_Draw], str]:
    return lambda d: form.format(a=d.pick(kind, least))


def _along(form: str, kind: str = "float", least: int = 1) -> Callable[[_Draw], str]:
    def make(d: _Draw) -> str:
        a = d.pick(kind, least)
        return form.format(a=a, i=d.axis(a), j=d.axis(a), k=d.rng.choice((True, False)), n=d.rng.randint(-2, 3))

    return make


def _binary(form: str, kind: str = "float") -> Callable[[_Draw], str]:
    def make(d: _Draw) -> str:
        a = d.pick(kind)
        b = (
            d.partner(a)
            if d.rng.random() < 0.8
            else str(d.rng.choice((2, 3, -1) if kind != "float" else (0.5, 2, -1.5)))
        )
        return form.format(a=a, b=b)

    return make


def _slice(d: _Draw) -> str:
    a = d.pick("any", 1)
    parts = [":"] * d.rank(a)
    parts[d.rng.randrange(d.rank(a))] = d.rng.choice(
        ("1:", ":-1", "::2", "-2:", ":2", "1:-1", "-3:-1", "0", "-1", "None, :", "1::2", "-8:0", "2:", ":1")
    )
    return f"{a}[{', '.join(parts)}]"


def _write(d: _Draw) -> str:
    a = d.pick("number", 1)
    part = _slice_parts(d, a)
    what = d.rng.choice((f"$[{part}] = 1", f"$[{part}] += 2", f"$[{part}].mul_(3)", f"$[{part}] = $[{part}] * 2"))
    return f"$ = {a}{d.rng.choice(('.clone()', ' * 1', ' + 0'))}; {what}"


def _slice_parts(d: _Draw, a: str) -> str:
    parts = [":"] * d.rank(a)
    parts[d.rng.randrange(d.rank(a))] = d.rng.choice(("1:", ":-1", "::2", "-2:", "0", "-1", "-8:0", ":3"))
    return ", ".join(parts)


def _view_write(d: _Draw) -> str:
    a = d.pick("number", 2)
    view = d.rng.choice(
        (".transpose(0, 1)", ".flatten(0, 1)", ".unsqueeze(0)", ".flip(0)", ".diagonal()", ".mT", "[None]")
    )
    return f"$ = {a}.clone(); $u = ${view}; $u[0] = $u[0] + 1"


def _reshape(d: _Draw) -> str:
    a = d.pick("any", 1)
    i = d.rng.randrange(d.rank(a))
    return d.rng.choice(
        (
            f"{a}.reshape(-1)",
            f"{a}.reshape({a}.shape[{i}], -1)",
            f"{a}.flatten({i})",
            f"{a}.unsqueeze({i})",
            f"{a}.squeeze({i})",
            f"{a}.reshape(*{a}.shape[::-1])",
            f"{a}.view({a}.shape[0], -1)" if d.rank(a) < 3 else f"{a}.flatten(0, 1)",
            f"{a}.unflatten({i}, (-1, 1))",
            f"{a}[None].expand(3, *{a}.shape)",
        )
    )


def _conv(d: _Draw) -> str:
    rank = d.rng.choice((1, 1, 2, 2, 3))
    a = d.pick("float", rank + 2, rank + 2)
    channels = d.size(a, 1)
    if not channels:
        raise NoChoiceError
    kernel = d.rng.choice((1, 2, 3))
    groups = d.rng.choice((1, channels))
    weight = d.weight(a, 2 * groups, channels // groups, *[kernel] * rank)
    options = f"padding={d.rng.choice((1, 2))}, stride={d.rng.choice((1, 2))}, groups={groups}"
    if d.rng.random() < 0.25:
        weight = d.weight(a, channels, 2, *[kernel] * rank)
        return f"F.conv_transpose{rank}d({a}, {weight}, stride={d.rng.choice((1, 2))})"
    return f"F.conv{rank}d({a}, {weight}, {options})"


def _pool(d: _Draw) -> str:
    rank = d.rng.choice((1, 2, 2, 3))
    a = d.pick("float", rank + 1, rank + 2)
    ceil = d.rng.choice((True, False))
    return d.rng.choice(
        (
            f"F.max_pool{rank}d({a}, 2, ceil_mode={ceil})",
            f"F.max_pool{rank}d({a}, 3, stride=2, padding=1, ceil_mode={ceil})",
            f"F.avg_pool{rank}d({a}, 2, ceil_mode={ceil})",
            f"F.avg_pool{rank}d({a}, 3, stride=1, padding=1, count_include_pad={ceil})",
            f"F.adaptive_avg_pool{rank}d({a}, 1)",
            f"F.adaptive_max_pool{rank}d({a}, 1)",
            f"F.lp_pool1d({a}, 2, 2)" if rank == 1 else f"F.max_pool{rank}d({a}, 2, stride=1, dilation=2, padding=1)",
        )
    )


def _resize(d: _Draw) -> str:
    rank = d.rng.choice((1, 2, 2, 3))
    a = d.pick("single", rank + 2, rank + 2)
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
    mode = d.rng.choice(("nearest", "nearest-exact", linear, linear, "area") + (("bicubic",) if rank == 2 else ()))
    corners = mode in (linear, "bicubic")
    by = d.rng.choice(
        ("scale_factor=2", "scale_factor=0.5", "scale_factor=1.7", f"size={tuple([d.rng.randint(1, 7)] * rank)}")
    )
    options = f", align_corners={d.rng.choice((True, False))}" if corners else ""
    if mode in ("bilinear", "bicubic") and d.rng.random() < 0.25:
        options = ", antialias=True"
    return f"F.interpolate({a}, {by}, mode={mode!r}{options})"


def _pad(d: _Draw) -> str:
    a = d.pick("float", 2)
    mode = d.rng.choice(("constant", "constant", "reflect", "replicate", "circular"))
    if mode == "constant":
        return f"F.pad({a}, ({d.rng.randint(-1, 2)}, {d.rng.randint(0, 2)}), value={d.rng.choice((0.0, 1.5))})"
    return f"F.pad({a}, (1, {d.rng.choice((0, 1))}), mode={mode!r})"


def _norm(d: _Draw) -> str:
    a = d.pick("float", 2)
    channels, last = d.size(a, 1), d.size(a, -1)
    return d.rng.choice(
        (
            f"F.layer_norm({a}, ({last},), {d.weight(a, last)}, {d.weight(a, last)})",
            f"F.batch_norm({a}, {d.weight(a, channels)}, {d.weight(a, channels)}.abs() + 0.5, {d.weight(a, channels)})",
            f"F.group_norm({a}, 1, {d.weight(a, channels)})",
            f"F.rms_norm({a}, ({last},))",
            f"F.normalize({a}, dim=1)",
        )
    )


def _linear(d: _Draw) -> str:
    a = d.pick("float", 1)
    last = d.size(a, -1)
    out = d.rng.randint(1, 6)
    if d.rng.random() < 0.3:
        return f"{a} @ {d.weight(a, last, out)}"
    bias = f", {d.weight(a, out)}" if d.rng.random() < 0.6 else ""
    return f"F.linear({a}, {d.weight(a, out, last)}{bias})"


def _attention(d: _Draw) -> str:
    a = d.pick("float", 3, 4)
    causal = d.rng.choice((True, False))
    return d.rng.choice(
        (
            f"F.scaled_dot_product_attention({a}, {a}, {a}, is_causal={causal})",
            f"torch.matmul({a}, {a}.transpose(-1, -2)).softmax(-1) @ {a}",
            f"torch.einsum('...ij,...kj->...ik', {a}, {a})",
        )
    )


def _gather(d: _Draw) -> str:
    a = d.pick("number", 1)
    i = d.axis(a)
    top = d.least_size(a, i)
    if top < 1:
        raise NoChoiceError
    places = [d.rng.randrange(top) for _ in range(3)]
    return d.rng.choice(
        (
            f"{a}.index_select({i}, torch.tensor({places}))",
            f"torch.take_along_dim({a}, {a}.argsort({i}, stable=True), {i})",
            f"{a}.sort({i}, stable=True).values",
            f"{a}.topk({min(2, top)}, {i}).values",
            f"{a}.cumsum({i})",
            f"{a}.flip({i})",
            f"{a}.roll(1, {i})",
            f"{a}.unfold({i}, {min(2, top)}, 1)",
            f"{a}.unfold({i}, {min(3, top)}, 2)",
            f"{a}.split(2, {i})[0]",
            f"{a}.chunk(2, {i})[0]",
            f"{a}.tensor_split(2, {i})[-1]",
            f"{a}.narrow({i}, 0, 1)",
            f"{a}.repeat_interleave(2, {i})",
            f"torch.cat([{a}, {a}], {i})",
            f"torch.stack([{a}, {a}], {i})",
            f"{a}.argmax({i})",
            f"{a}.diff(dim={i})",
        )
    )


def _forms(text: str) -> tuple[str, ...]:
    return tuple(form.strip() for line in text.strip().splitlines() for form in line.split(";;"))


def _nonlinear(d: _Draw) -> str:
    return d.rng.choice(_ACTIVATIONS).format(a=d.pick("float"))


_ACTIVATIONS = _forms(
    """
    torch.relu({a}) ;; torch.sigmoid({a}) ;; torch.tanh({a}) ;; F.gelu({a})
    F.gelu({a}, approximate='tanh') ;; F.silu({a}) ;; F.hardswish({a}) ;; F.hardsigmoid({a})
    F.softplus({a}) ;; F.elu({a}) ;; F.selu({a}) ;; F.mish({a}) ;; F.leaky_relu({a}, 0.1) ;; F.relu6({a})
    F.hardtanh({a}) ;; F.softsign({a}) ;; F.logsigmoid({a}) ;; {a}.erf() ;; {a}.abs() ;; -{a} ;; {a}.square()
    ({a}.abs() + 0.1).sqrt() ;; ({a}.abs() + 0.5).rsqrt() ;; ({a}.abs() + 0.5).log()
    {a}.clamp(-2, 2).exp() ;; {a}.sin() ;; {a}.cos() ;; {a}.atan() ;; {a}.clamp(-0.9, 0.9).asin()
    {a}.sinh().clamp(-9, 9) ;; {a}.floor() ;; {a}.round() ;; {a}.trunc() ;; {a}.sign() ;; {a}.frac()
    {a}.clamp(min=0.25) ;; {a}.reciprocal().clamp(-5, 5) ;; F.threshold({a}, 0.1, 20.0)
    {a}.expm1().clamp(-9, 9) ;; {a}.abs().log1p() ;; F.celu({a}) ;; F.softshrink({a})
    F.glu(torch.cat([{a}, {a}], -1), -1) ;; torch.nan_to_num({a}) ;; {a}.heaviside({a})
    {a}.sigmoid().logit(eps=1e-3)
    """
)
# torch's median of an expanded tensor writes over what it reads, so that it is given one of its own.
_REDUCTIONS = _forms(
    """
    {a}.sum({i}, keepdim={k}) ;; {a}.mean({i}, keepdim={k}) ;; {a}.amax({i}, keepdim={k})
    {a}.amin({i}, keepdim={k}) ;; {a}.softmax({i}) ;; {a}.log_softmax({i}) ;; {a}.logsumexp({i}, keepdim={k})
    {a}.norm(dim={i}, keepdim={k}) ;; {a}.var({i}, correction=0, keepdim={k}) ;; {a}.std({i}, correction=0)
    {a}.prod({i}, keepdim={k}) ;; {a}.max({i}).values ;; {a}.cumsum({i}) ;; {a}.mean() ;; {a}.sum()
    {a}.cummax({i}).values ;; {a}.contiguous().median({i}).values ;; {a}.aminmax(dim={i}).max
    """
)
_ARITHMETIC = _forms(
    """
    {a} + {b} ;; {a} - {b} ;; {a} * {b} ;; {a} * {b} ;; torch.maximum({a}, {a} * 0 + {b})
    {a} / (abs({b}) + 1) ;; torch.where({a} > {b}, {a}, {a} * 2) ;; {a} > {b} ;; {a} == {b} ;; {a} <= {b}
    torch.fmod({a}, abs({b}) + 1) ;; torch.remainder({a}, abs({b}) + 1) ;; ({a}.abs() + 0.5) ** 1.5
    torch.lerp({a}, {a} * 2, 0.3) ;; 2 ** {a}.clamp(-3, 3) ;; torch.atan2({a}, {a} * 0 + {b})
    torch.hypot({a}, {a} * 0 + {b}) ;; torch.addcmul({a}, {a}, {a}, value=0.5)
    """
)
_OF_INTEGERS = _forms(
    """
    {a} + {b} ;; {a} * {b} ;; {a} // (abs({b}) + 1) ;; {a} % (abs({b}) + 2) ;; {a} & 3 ;; {a} > {b}
    """
)
_ALONG_INTEGERS = _forms(
    """
    {a}.sum({i}) ;; {a}.float().mean({i}) ;; {a}.amax({i}) ;; {a}.cumsum({i}) ;; {a}.max({i}).indices
    """
)
_OF_BOOLS = _forms(
    """
    {a}.any({i}) ;; {a}.all({i}) ;; {a}.sum({i}) ;; {a}.cumsum({i}) ;; {a}.float() ;; ~{a}
    """
)
_INTEGER = [
    *[_binary(form, "integer") for form in _OF_INTEGERS],
    *[_along(form, "integer") for form in _ALONG_INTEGERS],
    _unary("F.one_hot({a}.long().clamp(0, 4), 5)", "integer"),
    _unary("{a}.float()", "integer"),
    _unary("{a}.to(torch.int32)", "number"),
    _unary("torch.arange({a}.shape[0]).to({a}.dtype)", "number", 1),
]
_BOOL = [
    *[_along(form, "bool") for form in _OF_BOOLS],
    _binary("{a} & {b} if isinstance({b}, torch.Tensor) else ~{a}", "bool"),
    lambda d: f"{(a := d.pick('float'))}.masked_fill({a} > 0.5, -1.0)",
    lambda d: f"torch.where({d.pick('bool')}.any(), {(a := d.pick('float'))}, {a} * 0.5)",
]
_TURNED = [_along("{a}.transpose({i}, {j})", "any", 2), _along("{a}.movedim({i}, {j})", "any", 2)]
_TYPES = [
    _unary("{a}.double()"),
    _unary("{a}.float()", "any"),
    _unary("{a}.long()"),
    _unary("{a}.bool()", "number"),
    _unary("{a}.half()", "single"),
]
# group -> (how often, its statements)
_GROUPS: dict[str, tuple[int, list[Callable[[_Draw], str]]]] = {
    "activation": (4, [_nonlinear]),
    "reduction": (3, [_along(form) for form in _REDUCTIONS]),
    "arithmetic": (4, [_binary(form) for form in _ARITHMETIC]),
    "integer": (2, _INTEGER),
    "bool": (2, _BOOL),
    "shape": (4, [_reshape, _slice, _slice, *_TURNED]),
    "write": (2, [_write, _view_write, _unary("$ = {a}.clone(); $.add_(1).mul_(2)", "number")]),
    "index": (3, [_gather, _along("{a}.tril({n})", "number", 2), _along("{a}.triu({n})", "any", 2)]),
    "network": (5, [_conv, _conv, _pool, _pool, _resize, _resize, _pad, _norm, _linear, _linear, _attention]),
    "type": (1, _TYPES),
}
