"""While capturing: Python's decisions over values (`if y.numel() > 0`, `if not mask.any()`, `if self.sizes[0] == 0`).

A capture has no values, so torch refuses them all.  Three kinds can be decided:

- What follows from weights, buffers and constants alone is computed from them: it is the same at every call.  So is
  what follows from sizes besides (a mask that the model makes itself), if the promised ones agree.
- What an assertion asks is answered by yes, since the model does not run otherwise, and an artifact asserts nothing;
  what an `if` asks that does nothing but raise, by no.
- What asks whether data selected anything, or more than so many, is answered as if it had selected a great many.  That
  branch is the general one: code for many rows is nearly always right for none, and not the other way round.  What was
  taken for granted so is an `Assumption`; `selections.py` holds the program to the model where it is false.

Whatever else hangs on a value stays refused.  What hangs on sizes, and is the same at all that are promised, is not
asked of the example (`settled.py`).
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import inspect
import linecache
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch

from graphforge.frontend.open_builtins import open_builtins
from graphforge.frontend.settled import Promised, promised_sizes, settled
from graphforge.frontend.weights_alone import computed, hanging_on
from graphforge.user_code import is_installed, shown_path

__all__ = ["ASSUMED", "COUNTED", "Assumption", "Decisions", "deciding"]

# How an assertion that stands for an assumption begins, in the program.
ASSUMED = "graphforge assumes "
# The same of one that only keeps a count in the program, which a symbol stands for.
COUNTED = "graphforge counts "
# What "a great many" is, several times over: what they do not agree about is not decided.
_MANY = (1_000_003, 1_000_004, 1_000_005, 1_000_006, 1_000_008, 1_000_010)
_LARGE = object()
# Instructions that only branch on a value, by words in their names.
_BRANCHING = ("JUMP", "TO_BOOL", "COPY", "CACHE", "NOP")
# Modules whose frames only carry a question on.
_NOT_ASKING = ("torch", "graphforge", "sympy", "contextlib", "functools")
# A context made by a generator that is in a context itself, and so on: so many are looked into.
_DEEPEST_CONTEXT = 4
# Lines of a statement that are looked at.
_LONGEST_STATEMENT = 20
# Functions that ask their arguments nothing, where an assertion calls them.
_NOT_QUESTIONS = {"len", "isinstance", "hasattr", "getattr", "tuple", "list", "abs", "sum", "range", "zip", "enumerate"}
# Methods of lists that ask each entry.
_ASKING_FOR_EACH = ("count", "index", "remove", "sort")
# Parts of an expression that ask what they are made of, or run code of which the line tells nothing.
_QUESTIONS = (
    ast.BoolOp,
    ast.Not,
    ast.IfExp,
    ast.In,
    ast.NotIn,
    ast.comprehension,
    ast.Lambda,
)
# Who catches these does not fail where an assertion does not hold.
_CATCHING = ("AssertionError", "Exception", "BaseException")
# Contexts that let what is raised within them through; of others nobody knows.
_LETTING_THROUGH = frozenset(
    "autocast catch_warnings closing enable_grad errstate inference_mode no_grad nullcontext record_function "
    "redirect_stderr redirect_stdout".split()
)


_Takes: TypeAlias = Callable[[ast.ExceptHandler], bool]
_Names: TypeAlias = Sequence[Mapping[str, Any]]
# The line and column at which something begins, and those at which it ends.
_Place: TypeAlias = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Guarded:
    """Lines on which what is raised is caught; where contexts stand around them, unless all of these let it through."""

    lines: range
    contexts: Sequence[ast.expr] = ()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The answer that a part of an assertion has to get.

    Attributes:
        place: where the part stands.
        answer: what it has to be.
        within: whether every question inside of it has to be answered so.
    """

    place: _Place
    answer: bool
    within: bool

    def holds(self, place: _Place) -> bool:
        return self.place[0] <= place[0] and place[1] <= self.place[1]


@dataclass(frozen=True, slots=True)
class Assumption:
    """A decision that was made without its value.

    Attributes:
        text: the condition, as it stands in the user's code or in symbols.
        place: ``file.py:12``, "" where no line of the user's is involved.
        expression: a sympy condition over sizes that depend on data; None where the program holds an assertion.
        answer: what the condition was taken to be.
    """

    text: str
    place: str
    expression: Any
    answer: bool


@dataclass(slots=True)
class Decisions:
    """What was decided in one capture.

    Attributes:
        assumptions: in the order of the code.
        flipped: questions of ``open_questions`` that are answered the other way, see ``flip``.
        open_questions: those that have no general answer, in the order in which they were asked.
        caught: what torch said to the first question that it refused where the model's own `try` may have caught it.
        of_numbers: where it first asked a tensor outside the program, as fx and trace hand weights on.
        promised: the sizes that are promised, by the symbols of the capture.
    """

    assumptions: list[Assumption] = field(default_factory=list)
    flipped: set[str] = field(default_factory=set)
    open_questions: list[str] = field(default_factory=list)
    caught: Exception | None = None
    of_numbers: str = ""
    promised: Promised = field(default_factory=Promised)

    def forget(self) -> None:
        """The model is about to be captured again."""
        self.assumptions.clear()
        self.open_questions.clear()
        self.caught = None
        self.of_numbers = ""

    def refused(self, error: Exception) -> None:
        """Torch does not answer a question, which the model may take for a failure of its own and go on from."""
        if self.caught is None and _may_end_here(_takes_all):
            self.caught = error

    def flip(self) -> bool:
        """Answer the last question that has no general answer the other way next time; False when there is none."""
        for question in reversed(self.open_questions):
            if question not in self.flipped:
                self.flipped.add(question)
                return True
        return False


@contextmanager
def deciding(
    model: torch.nn.Module, modules: Sequence[ModuleType], decisions: Decisions, *, weights_first: bool
) -> Iterator[None]:
    """Decide while the context lasts.

    Args:
        model: the model that is captured.
        modules: those of its own code.
        decisions: where what is decided is kept.
        weights_first: whether the program's first inputs are the model's weights and buffers, in their order.
    """
    import sympy
    from torch.fx.experimental.symbolic_shapes import ShapeEnv, uninteresting_files

    # our frames are not those that asked
    uninteresting_files().update(str(path) for path in Path(__file__).parent.glob("*.py"))
    mode = _Deciding(model if weights_first else None, decisions)
    environment: Any = ShapeEnv
    evaluate = environment.evaluate_expr

    def evaluate_expr(self: Any, expression: Any, *args: Any, **kwargs: Any) -> Any:
        known = settled(decisions.promised, expression)
        if known is not None:
            return known
        known = settled(decisions.promised, expression, least=2)
        if known is not None and _torch_asks():
            return known
        try:
            return evaluate(self, expression, *args, **kwargs)
        except Exception as error:
            answer = mode.of_sizes(self, expression) if type(error).__name__.startswith("GuardOnData") else None
            if answer is None and not _torch_asks():
                answer = {True: sympy.true, False: sympy.false, None: None}[_in_an_assertion(of_numbers=True)]
            if answer is None:
                decisions.refused(error)
                raise
            return answer

    environment.evaluate_expr = evaluate_expr
    try:
        with open_builtins(modules), mode.asked():
            yield
    finally:
        environment.evaluate_expr = evaluate


class _Deciding:
    """Sees every question of Python's for the value of a tensor."""

    def __init__(self, model: torch.nn.Module | None, decisions: Decisions) -> None:
        self.decisions = decisions
        self.weights: list[torch.Tensor] = []
        if model is not None:
            self.weights += dict(model.named_parameters(remove_duplicate=False)).values()
            self.weights += dict(model.named_buffers(remove_duplicate=False)).values()
        self.counts: set[Any] = set()

    @contextmanager
    def asked(self) -> Iterator[None]:
        """The methods by which Python asks come here while the context lasts."""
        tensors: Any = torch.Tensor
        own = {name: vars(tensors)[name] for name in _ASKS if name in vars(tensors)}
        for name in _ASKS:
            setattr(tensors, name, self._method(name, getattr(tensors, name)))
        try:
            yield
        finally:
            for name in _ASKS:
                if name in own:
                    setattr(tensors, name, own[name])
                else:
                    delattr(tensors, name)

    def _method(self, name: str, original: Any) -> Any:
        def method(value: torch.Tensor) -> Any:
            node, tracer = _node_of(value)
            if node is None:
                if not self.decisions.of_numbers and type(value) in (torch.Tensor, torch.nn.Parameter):
                    self.decisions.of_numbers = _asked_at()[0]
                return original(value)
            known = self.from_constants(node, tracer, lambda real: getattr(real, name)())
            if known is not None:
                return known
            if name in _DECIDES and value.dtype is torch.bool and value.numel() == 1:
                asserted = _in_an_assertion()
                if asserted is not None:
                    return asserted
                answer = self.general(value, node)
                if answer is not None:
                    return answer
            try:
                result = original(value)
            except Exception as error:
                self.decisions.refused(error)
                raise
            if isinstance(result, torch.SymInt) and _in_the_limit(node) is _LARGE:
                symbol = result.node.expr
                if symbol not in self.counts:  # the count stays in the program, to be looked at there
                    torch.ops.aten._assert_async.msg(value, f"{COUNTED}{symbol}")
                self.counts.add(symbol)
            return result

        return functools.wraps(original)(method)

    # -- constants -----------------------------------------------------------------------------------------------------

    def from_constants(self, node: torch.fx.Node, tracer: Any, asked: Callable[[torch.Tensor], Any]) -> Any:
        """What is asked of a node that hangs on weights, buffers and constants alone; None for any other.

        On sizes besides, if the answer is the same at the promised ones.
        """

        def tensor_of(one: torch.fx.Node) -> torch.Tensor | None:
            return self._tensor_of(one, tracer)

        order = hanging_on(node, tensor_of)
        known = None if order is None else computed(node, order, asked)
        promised = self.decisions.promised
        if known is not None or not promised.dims:
            return known
        order = hanging_on(node, tensor_of, promised.dims)
        answers = None if order is None else [computed(node, order, asked, at) for at in promised_sizes(promised)]
        return answers[0] if answers and all(one == answers[0] for one in answers) else None

    def _tensor_of(self, node: torch.fx.Node, tracer: Any) -> torch.Tensor | None:
        if node.op == "placeholder":
            place = _position(node)
            known = place < len(self.weights) and tuple(node.meta["val"].shape) == tuple(self.weights[place].shape)
            return self.weights[place] if known else None
        tensor = getattr(tracer.root, str(node.target), None)
        return tensor if type(tensor) in (torch.Tensor, torch.nn.Parameter) else None

    # -- the general branch --------------------------------------------------------------------------------------------

    def general(self, value: torch.Tensor, node: torch.fx.Node) -> bool | None:
        answer = _in_the_limit(node)
        text, place = _asked_at()
        if answer is None and str(node.target) == "aten.all.default":
            question = f"{place} {text}"
            if question not in self.decisions.open_questions:
                self.decisions.open_questions.append(question)
            answer = question in self.decisions.flipped
        if not isinstance(answer, bool):
            return None
        told = value if answer else value.logical_not()
        torch.ops.aten._assert_async.msg(told, f"{ASSUMED}{len(self.decisions.assumptions)}")
        self.decisions.assumptions.append(Assumption(text or "a value", place, None, answer))
        return answer

    def of_sizes(self, environment: Any, expression: Any) -> Any:
        """A condition on sizes that depend on data, where a great many rows all give the same answer."""
        import sympy

        if not getattr(expression, "is_Boolean", False) and not getattr(expression, "is_Relational", False):
            return None
        backed = getattr(environment, "backed_var_to_val", None) or environment.var_to_val
        free = [symbol for symbol in expression.free_symbols if symbol not in backed]
        # the later ones first, as they are the smaller: what is selected from a selection is a part of it
        free.sort(key=lambda symbol: (len(symbol.name), symbol.name), reverse=True)
        if not free or not all(symbol in environment.size_like or symbol in self.counts for symbol in free):
            return None
        if isinstance(expression, sympy.Eq | sympy.Ne) and len(free) > 1:
            return None  # two selections of one size, or not: neither is the general case
        answers = set()
        for many in _MANY:
            at = {**{symbol: backed[symbol] for symbol in expression.free_symbols if symbol in backed}}
            at |= {symbol: sympy.Integer(many * (1 + 2 * place)) for place, symbol in enumerate(free)}
            answers.add(expression.xreplace(at))
        if len(answers) != 1 or next(iter(answers)) not in (sympy.true, sympy.false):
            return None
        (answer,) = answers
        text, place = _asked_at()
        assumption = Assumption(text or str(expression), place, expression, bool(answer))
        if assumption not in self.decisions.assumptions:
            self.decisions.assumptions.append(assumption)
        return answer


_DECIDES = ("__bool__", "item")
_ASKS = ("__bool__", "item", "tolist", "__int__", "__float__", "__index__")


def _node_of(value: torch.Tensor) -> tuple[torch.fx.Node | None, Any]:
    """The node of the program so far that computes a tensor."""
    from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot

    mode = get_proxy_mode()
    if mode is None:
        return None, None
    slot = get_proxy_slot(value, mode.tracer, None)
    node = getattr(getattr(slot, "proxy", None), "node", None)
    return (node if isinstance(node, torch.fx.Node) else None), mode.tracer


def _position(placeholder: torch.fx.Node) -> int:
    return [node for node in placeholder.graph.nodes if node.op == "placeholder"].index(placeholder)


_HANDED_ON = (
    "aten._to_copy.default aten.to.dtype aten.to.dtype_layout aten.clone.default aten.detach.default "
    "aten.alias.default aten.view.default aten.reshape.default aten.squeeze.default aten.squeeze.dim "
    "aten.select.int aten.unbind.int aten.contiguous.default aten.flatten.using_ints"
).split()
_COMPARED: dict[str, Callable[[int, float], bool]] = {
    "gt": lambda one, other: one > other,
    "ge": lambda one, other: one >= other,
    "lt": lambda one, other: one < other,
    "le": lambda one, other: one <= other,
    "eq": lambda one, other: one == other,
    "ne": lambda one, other: one != other,
}


def _in_the_limit(node: Any) -> Any:
    """What a node gives where data selects a great many: True, False, ``_LARGE`` for a count, None if nobody knows."""
    if not isinstance(node, torch.fx.Node) or node.op != "call_function":
        return None
    name = str(node.target)
    if name in _HANDED_ON:
        return _in_the_limit(node.args[0])
    if name.startswith("aten.any."):
        return True
    fed = node.args[0].meta.get("val") if node.args and isinstance(node.args[0], torch.fx.Node) else None
    if name.startswith("aten.count_nonzero"):
        return _LARGE
    if name.startswith("aten.sum."):
        return _LARGE if isinstance(fed, torch.Tensor) and (fed.dtype is torch.bool or _is_of_bools(node)) else None
    if name in ("aten.logical_not.default", "aten.bitwise_not.default"):
        inside = _in_the_limit(node.args[0])
        return not inside if isinstance(inside, bool) else None
    comparison, _, overload = name.removeprefix("aten.").partition(".")
    if comparison in _COMPARED and overload == "Scalar" and _in_the_limit(node.args[0]) is _LARGE:
        other = node.args[1]
        return _COMPARED[comparison](_MANY[0], other) if isinstance(other, int | float) else None
    return None


def _is_of_bools(node: torch.fx.Node) -> bool:
    """Whether a sum adds up bools that were made numbers first."""
    fed = node.args[0]
    while isinstance(fed, torch.fx.Node) and str(fed.target) in _HANDED_ON:
        fed = fed.args[0]
    value = fed.meta.get("val") if isinstance(fed, torch.fx.Node) else None
    return isinstance(value, torch.Tensor) and value.dtype is torch.bool


def _in_an_assertion(*, of_numbers: bool = False) -> bool | None:
    """The answer to the question that an `assert` asks, or an `if` that raises: the model fails with any other.

    None where none asks.  What is asked `of numbers` (`x.max().item() > 9`) is a part of the assertion itself, or it
    is not answered.
    """
    frame: Any = sys._getframe(2)
    while frame is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] in _NOT_ASKING:
        frame = frame.f_back
    if frame is None:
        return None
    asked = frame.f_code.co_filename, frame.f_lineno
    takes: _Takes = _takes_assertions
    wanted = _wanted_by_assertion(*asked)
    if not wanted:
        wanted, takes = _wanted_by_raising(*asked), _takes_all
    if not wanted or _may_end_here(takes, frame):
        return None
    if of_numbers:
        asking = _being_evaluated(frame)
        return next((one.answer for one in wanted if one.place == asking), None)
    if not all(one.within for one in wanted):
        return None
    if len({one.answer for one in wanted}) == 1:
        return wanted[0].answer
    asking = _being_evaluated(frame)
    return None if asking is None else next((one.answer for one in wanted if one.holds(asking)), None)


def _may_end_here(takes: _Takes, frame: Any = None) -> bool:
    """Whether what is raised in a frame of the model's, the given or the present one, may be caught by the model.

    Looked at is every frame from there outwards; the handlers that count are those that ``takes`` says yes to.
    """
    frame = frame or sys._getframe(2)
    inner = True
    while frame is not None:
        name, file = str(frame.f_globals.get("__name__", "")).split(".")[0], frame.f_code.co_filename
        if name == "graphforge" and not inner:  # what lies outside of it calls us, not the model
            return False
        if name not in _NOT_ASKING:
            inner = False
            around = _around(file, frame.f_lineno, takes)
            if around and _ends(around, takes, (frame.f_locals, frame.f_globals, vars(builtins))):
                return True
        frame = frame.f_back
    return False


def _ends(around: Sequence[_Guarded], takes: _Takes, names: _Names, depth: int = 0) -> bool:
    """Whether what is raised within these may end in one of them."""
    return not all(
        one.contexts and all(_lets_through(each, takes, names, depth) for each in one.contexts) for one in around
    )


def _around(file: str, line: int, takes: _Takes) -> Sequence[_Guarded]:
    return [one for one in _guarded_lines(file, takes) if line in one.lines]


@functools.lru_cache(maxsize=512)
def _guarded_lines(file: str, takes: _Takes) -> Sequence[_Guarded]:
    found: list[_Guarded] = []
    for one in _parts_of(file):
        if isinstance(one, ast.With | ast.AsyncWith):
            contexts = tuple(item.context_expr for item in one.items)
            found.append(_Guarded(range(one.body[0].lineno, (one.end_lineno or one.lineno) + 1), contexts))
        elif isinstance(one, ast.Try | ast.TryStar):
            if any(map(_goes_on, one.finalbody)):
                found.append(_Guarded(range(one.lineno, one.finalbody[0].lineno)))
            elif any(map(takes, one.handlers)):
                last = one.body[-1]
                found.append(_Guarded(range(one.body[0].lineno, (last.end_lineno or last.lineno) + 1)))
    return found


def _lets_through(context: ast.expr, takes: _Takes, names: _Names, depth: int) -> bool:
    """Whether what is raised within a context leaves it.

    Torch's own contexts do so, some of the standard library, and those of the user's whose code can end nothing: a
    class whose ``__exit__`` gives nothing, a generator that catches nothing around its ``yield``.
    """
    called = isinstance(context, ast.Call)
    expression = context.func if isinstance(context, ast.Call) else context
    match expression:
        case ast.Name(id=name) | ast.Attribute(attr=name) if called and name in _LETTING_THROUGH:
            return True
    if _named(context)[:1] == ["torch"]:
        return True
    thing = _meant(expression, names)
    if called and inspect.isgeneratorfunction(getattr(thing, "__wrapped__", None)):
        return _yields_uncaught(thing.__wrapped__, takes, depth + 1)
    leave = getattr(thing if isinstance(thing, type) else type(thing), "__exit__", None)
    return called == isinstance(thing, type) and inspect.isfunction(leave) and _gives_nothing(leave)


def _meant(expression: ast.expr, names: _Names) -> Any:
    """What a name, or an attribute of one, stands for; None where only running the code would tell."""
    match expression:
        case ast.Name(id=name):
            return next((held[name] for held in names if name in held), None)
        case ast.Attribute(value=owner, attr=name):
            held = _meant(owner, names)
            found = None if held is None else inspect.getattr_static(held, name, None)
            return getattr(found, "__func__", found)  # static methods and those of the class
    return None


def _yields_uncaught(generator: Any, takes: _Takes, depth: int) -> bool:
    """Whether what is raised at each ``yield`` of a generator leaves it."""
    code = _code_of(generator)
    if code is None or depth > _DEEPEST_CONTEXT:
        return False
    file, names = generator.__code__.co_filename, (generator.__globals__, vars(builtins))
    lines = [part.lineno for part in ast.walk(code) if isinstance(part, ast.Yield | ast.YieldFrom)]
    return not any(_ends(_around(file, line, takes), takes, names, depth) for line in lines)


def _gives_nothing(function: Any) -> bool:
    """Whether no `return` of a function gives anything that is true."""
    code = _code_of(function)
    given = [] if code is None else [part.value for part in ast.walk(code) if isinstance(part, ast.Return)]
    return code is not None and all(one is None or (isinstance(one, ast.Constant) and not one.value) for one in given)


def _code_of(function: Any) -> ast.AST | None:
    """A function's definition, as its file has it; None where it is not found there."""
    first = function.__code__.co_firstlineno  # that of its decorators, where it has any
    for part in _parts_of(function.__code__.co_filename):
        if isinstance(part, ast.FunctionDef) and min([part.lineno, *(d.lineno for d in part.decorator_list)]) == first:
            return part
    return None


@functools.lru_cache(maxsize=64)
def _parts_of(file: str) -> Sequence[ast.AST]:
    try:
        return list(ast.walk(ast.parse("".join(linecache.getlines(file)))))
    except (SyntaxError, ValueError, RecursionError):
        return ()


def _takes_all(_: ast.ExceptHandler) -> bool:
    return True


def _takes_assertions(handler: ast.ExceptHandler) -> bool:
    """Whether an assertion that fails may end in a handler, and the model go on from there."""
    names = _named(handler.type) if handler.type else [*_CATCHING]
    if not any(name in _CATCHING or not name.endswith(("Error", "Exception", "torch")) for name in names):
        return False
    return not isinstance(handler.body[-1], ast.Raise) or any(map(_goes_on, handler.body))


def _goes_on(statement: ast.stmt) -> bool:
    return any(isinstance(part, ast.Return | ast.Break | ast.Continue) for part in ast.walk(statement))


def _named(expression: ast.expr) -> list[str]:
    """The names in an expression, the outermost first: ``torch``, ``no_grad`` of ``torch.no_grad()``."""
    return [part.id for part in ast.walk(expression) if isinstance(part, ast.Name)]


@functools.lru_cache(maxsize=1024)
def _wanted_by_assertion(file: str, line: int) -> Sequence[_Wanted]:
    """What the assertion at a line asks, and what has to be answered; nothing where none stands there."""
    for start in range(line, max(0, line - _LONGEST_STATEMENT), -1):
        if not linecache.getline(file, start).lstrip().startswith("assert"):
            continue
        text = ""
        for number in range(start, start + _LONGEST_STATEMENT):
            text += linecache.getline(file, number)
            try:
                block: Any = ast.parse(f"if True:\n{text}" if text[:1].isspace() else f"if True: \\\n{text}").body[0]
                (statement,) = block.body
            except (SyntaxError, ValueError):
                continue
            if number < line or not isinstance(statement, ast.Assert):
                return ()
            return _wanted(statement.test, answer=True, before=start - 2)
        return ()
    return ()


@functools.lru_cache(maxsize=1024)
def _wanted_by_raising(file: str, line: int) -> Sequence[_Wanted]:
    """What an `if` at a line asks that ends in a `raise`, and what has to be answered for the model to go on."""
    for one in _parts_of(file):
        if not isinstance(one, ast.If) or not one.test.lineno <= line <= (one.test.end_lineno or line):
            continue
        if not isinstance(one.body[-1], ast.Raise) or any(map(_goes_on, one.body)):
            continue
        return _wanted(one.test, answer=False)
    return ()


def _wanted(test: ast.expr, *, answer: bool, before: int = 0) -> Sequence[_Wanted]:
    parts = _apart(test, answer=answer)
    return [_Wanted(_place_of(part, before), each, _holds_by(each, part)) for part, each in parts]


def _apart(test: ast.expr, *, answer: bool) -> Iterator[tuple[ast.expr, bool]]:
    """The parts of an expression that each have to be answered by yes or no for the whole to be answered so."""
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=inside):
            yield from _apart(inside, answer=not answer)
        case ast.Compare(left=inside, ops=[ast.Is() | ast.Eq()], comparators=[ast.Constant(value=bool(other))]) if (
            isinstance(test.ops[0], ast.Is) or _is_of_python(inside)
        ):
            yield from _apart(inside, answer=answer is other)
        case ast.BoolOp(op=joined, values=parts) if isinstance(joined, ast.And if answer else ast.Or):
            for part in parts:
                yield from _apart(part, answer=answer)
        case _:
            yield test, answer


def _is_of_python(expression: ast.expr) -> bool:
    """Whether an expression gives a bool of Python's, so that a comparison with one asks nothing more."""
    match expression:
        case ast.Call(func=ast.Name(id="bool") | ast.Attribute(attr="item")):
            return True
    return False


def _place_of(part: ast.expr, before: int) -> _Place:
    """Where a part stands in its file: its first line and column, its last ones."""
    end = part.end_lineno or part.lineno, part.end_col_offset or 0
    return (part.lineno + before, part.col_offset), (end[0] + before, end[1])


def _being_evaluated(frame: Any) -> _Place | None:
    """Where the expression stands whose truth a frame asks for.

    An instruction that only branches has no place of its own: the one before it made what is asked.
    """
    made = None
    for instruction in dis.get_instructions(frame.f_code):
        place = instruction.positions
        if not any(word in instruction.opname for word in _BRANCHING) and place is not None and None not in place:
            made = place
        if instruction.offset >= frame.f_lasti:
            break
    if made is None:
        return None
    line, last, column, end = (int(number or 0) for number in made)
    return (line, column), (last, end)


def _holds_by(answer: bool, test: ast.expr) -> bool:
    """Whether an expression is yes (no) only where every question that it asks of a value is answered by yes (no).

    Questions may stand where their answer is the expression's own: `a and b`, `bool(a)`, `all(a for ...)`, `0 < a < 9`;
    and where a no is asked for, `a or b`, `any(a for ...)`.  Anywhere else (`a or b`, `note(bool(a))`, `table[int(a)]`)
    another answer may do as well, or is kept for later.
    """

    def holds(part: ast.expr) -> bool:
        return _holds_by(answer, part)

    match test:
        case ast.BoolOp(op=joined, values=parts) if isinstance(joined, ast.And if answer else ast.Or):
            return all(map(holds, parts))
        case ast.Call(func=ast.Name(id="bool"), args=[asked], keywords=[]):
            return holds(asked)
        case ast.Call(func=ast.Name(id=name), args=[given], keywords=[]) if name == ("all" if answer else "any"):
            match given:
                case ast.GeneratorExp(elt=each, generators=loops) | ast.ListComp(elt=each, generators=loops):
                    return not any(one.ifs or _asks(one.iter) for one in loops) and holds(each)
                case ast.List(elts=parts) | ast.Tuple(elts=parts):
                    return all(map(holds, parts))
            return not _asks(given)
        case ast.Call(func=ast.Attribute(value=asked, attr="item"), args=[], keywords=[]):
            return holds(asked)
        case ast.Compare(left=asked, ops=[ast.Is() | ast.Eq()], comparators=[ast.Constant(value=True)]):
            return holds(asked)
        case ast.Compare(left=left, ops=ops, comparators=others):
            lists = any(isinstance(one, ast.List | ast.Tuple) for one in (left, *others))
            ordered = [one for one in ops if not isinstance(one, ast.Eq)]
            unknown = any(isinstance(one, ast.NotEq | ast.In | ast.NotIn) for one in ops) or (
                not answer and len(ops) > 1
            )
            return not unknown and not (lists and ordered) and not any(map(_asks, (left, *others)))
    return not _asks(test)


def _asks(expression: ast.expr) -> bool:
    """Whether a part of an expression may ask a value, or run code of the user's that is handed an answer."""
    return any(_is_a_question(part) for part in ast.walk(expression))


def _is_a_question(part: ast.AST) -> bool:
    match part:
        case ast.Compare(ops=[_, _, *_]):
            return True
        case ast.Call(func=ast.Name(id=name)):
            return hasattr(builtins, name) and name not in _NOT_QUESTIONS
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in (*_ASKS, *_ASKING_FOR_EACH) or _named(part.func)[:1] in (
                ["operator"],
                ["math"],
                ["np"],
                ["numpy"],
            )
    return isinstance(part, _QUESTIONS)


def _torch_asks() -> bool:
    """Whether a question about sizes is one of torch's own code, and not of the model's."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name != "torch" and not name.startswith(("graphforge.", "torch.fx.experimental.")):
            return name.split(".")[0] == "torch"
        frame = frame.f_back
    return False


def _asked_at() -> tuple[str, str]:
    """The line of the user's that asks, and where it stands: the innermost frame that is neither ours nor installed."""
    frame: Any = sys._getframe(1)
    others = ("", "")
    while frame is not None:
        file, name = frame.f_code.co_filename, str(frame.f_globals.get("__name__", ""))
        top = name.split(".")[0]
        if top not in _NOT_ASKING and not file.startswith("<"):
            found = linecache.getline(file, frame.f_lineno).strip(), f"{shown_path(file)}:{frame.f_lineno}"
            if not is_installed(file):
                return found
            others = others if others[1] else found
        frame = frame.f_back
    return others
