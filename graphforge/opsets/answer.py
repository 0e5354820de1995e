"""The whole answer of `graphforge opset`: what the model needs, what each opset can do for it, what runtimes lack."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.limiting import BeyondLimitError
from graphforge.opsets.audit import OpsetReport, opset_report, opset_report_of_file
from graphforge.opsets.matrix import Cell, OpsetMatrix, Place, State, as_delivered, opset_matrix
from graphforge.shown import Shown
from graphforge.targets.support import Runtime, runtimes
from graphforge.targets.tables import Form

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from graphforge.opsets.prove import Proof

__all__ = ["SCHEMA", "Fit", "Lack", "OpsetAnswer", "answer_for_file", "answer_for_model"]

# Of the JSON form; it grows when a key changes its meaning or goes.
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Lack:
    """An operator of the model that a runtime does not take, or of which nobody says whether it does.

    Attributes:
        operator: the operator.
        count: number of nodes.
        places: the first few of them.
        reason: what the runtime makes of these nodes, which are written in a form that it does not do; "" where it does
            not know the operator.
    """

    operator: str
    count: int
    places: tuple[Place, ...]
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "operator": self.operator,
            "count": self.count,
            "nodes": [place.to_dict() for place in self.places],
            "reason": self.reason or None,
        }


@dataclass(frozen=True, slots=True)
class Fit:
    """What one runtime makes of the model.

    Attributes:
        runtime: the runtime.
        opset: the opset to deliver for it; None when it reads none that the model can be delivered in.
        unsupported: what it lacks at that opset.
        unknown: operators of which its documentation says nothing.
        limits: operator of the model -> what the documentation says it takes of it only.
        lacking: opset -> what it lacks there, for every opset that it reads and that is legal.
    """

    runtime: Runtime
    opset: int | None
    unsupported: tuple[Lack, ...]
    unknown: tuple[Lack, ...]
    limits: dict[str, str]
    lacking: dict[int, tuple[Lack, ...]]

    @property
    def verdict(self) -> str:
        """``ready``, ``lacks operators``, ``not documented`` or ``no opset``."""
        if self.opset is None:
            return "no opset"
        if self.unsupported:
            return "lacks operators"
        return "not documented" if self.unknown else "ready"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "target": self.runtime.target,
            "title": self.runtime.title,
            "document": self.runtime.document,
            "url": self.runtime.url or None,
            "evidence": self.runtime.evidence,
            "reads": {"oldest": self.runtime.oldest_opset, "newest": self.runtime.newest_opset},
            "note": self.runtime.note or None,
            "verdict": self.verdict,
            "opset": self.opset,
            "unsupported": [lack.to_dict() for lack in self.unsupported],
            "unknown": [lack.to_dict() for lack in self.unknown],
            "limits": dict(sorted(self.limits.items())),
            "lacking_by_opset": {str(opset): len(lacks) for opset, lacks in sorted(self.lacking.items())},
        }


@dataclass(frozen=True, slots=True, repr=False)
class OpsetAnswer(Shown):
    """The answer.

    Attributes:
        audit: the lowest opset of the model as it stands, and the nodes that say so.
        matrix: every opset from the newest down to 11; None when the model cannot be read into the IR.
        fits: every runtime asked about.
        proofs: what came of running it, empty unless asked for.
        notes: what limits the answer.
    """

    audit: OpsetReport
    matrix: OpsetMatrix | None
    fits: tuple[Fit, ...]
    proofs: tuple[Proof, ...] = ()
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """``written in opset 17, deliverable from opset 11 on, ready for 3 of 6 runtimes``."""
        lowest = self.audit.lowest if self.matrix is None else self.matrix.lowest
        ready = sum(fit.verdict == "ready" for fit in self.fits)
        text = f"written in opset {self.audit.opset}, " + (
            "not deliverable" if lowest is None else f"deliverable from opset {lowest} on"
        )
        return f"{text}, ready for {ready} of {len(self.fits)} runtimes"

    def render(self, console: Console) -> None:
        """Print what the model needs and why, the matrix, and what each runtime lacks."""
        from graphforge.opsets.render import print_answer

        print_answer(console, self)

    @property
    def is_disproved(self) -> bool:
        """Whether a legal opset gave a wrong result or an invalid file."""
        return any(proof.passed is False for proof in self.proofs)

    def cure(self, operator: str) -> str:
        """What to do about an operator that needs a newer opset than wanted."""
        cells = self.matrix.cells if self.matrix is not None else ()
        for cell in cells:
            for item in cell.obstructions:
                if item.operator == operator:
                    return item.cure or f"no older form: deliver opset {item.lowest} or newer"
            for rewrite in cell.step:
                if rewrite.operator == operator and cell.state is State.LEGALISED:
                    return f"deliver opset {cell.opset} or lower: {rewrite.how}"
        return ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form: keys sorted, the same keys whatever the model."""
        audit = self.audit.to_dict()
        for need in audit["deciding"]:
            need["cure"] = self.cure(need["operator"]) or None
        proofs = {proof.opset: proof for proof in self.proofs}
        cells = self.matrix.cells if self.matrix is not None else ()
        audit["notes"] = [*audit["notes"], *self.notes]
        document = {
            "schema": SCHEMA,
            **audit,
            "lowest_deliverable": None if self.matrix is None else self.matrix.lowest,
            "opsets": [_cell_as_dict(cell, proofs.get(cell.opset)) for cell in cells],
            "targets": [fit.to_dict() for fit in self.fits],
        }
        ordered: dict[str, Any] = json.loads(json.dumps(document, sort_keys=True))
        return ordered


def _cell_as_dict(cell: Cell, proof: Proof | None) -> dict[str, Any]:
    return {
        "opset": cell.opset,
        "state": cell.state.value,
        "rewrites": [rewrite.to_dict() for rewrite in cell.rewrites],
        "obstructions": [item.to_dict() for item in cell.obstructions],
        "operators": {name: {"count": used.count, "version": used.version} for name, used in cell.operators.items()},
        "proof": None if proof is None else proof.to_dict(),
    }


def answer_for_file(
    path: Path, *, target: str | None = None, outputs: str | None = None, nms: str | None = None
) -> tuple[OpsetAnswer, ir.Model | None]:
    """The answer for an ONNX file: as it stands where its own opset allows, else by way of the home opset.

    Args:
        path: the file.
        target: only this runtime.
        outputs, nms: as ``compile`` takes them.

    Returns:
        The answer, and the model in canonical form (None when it cannot be read into the IR).

    Raises:
        GraphForgeError: the file cannot be read, or is beyond a limit.
        UsageError: the target is unknown.
    """
    from graphforge.onnx_io.importing import import_onnx
    from graphforge.passes import default_pipeline
    from graphforge.transform import Pipeline

    chosen = runtimes(target)
    read: ir.Model | GraphForgeError
    try:
        read = import_onnx(path)
    except BeyondLimitError:  # nor would the audit be done with it
        raise
    except GraphForgeError as error:
        read = error
    audit = opset_report_of_file(path)
    unchanged = () if audit.invalid else range(audit.lowest, audit.opset + 1)
    try:
        model = _unless_refused(read)
        Pipeline(default_pipeline()).run(model)
        as_delivered(model, outputs=outputs, nms=nms)
        matrix = opset_matrix(model, as_it_stands=unchanged, forms=_forms_of(chosen))
    except GraphForgeError as error:
        reason = f"only the file as it stands was looked at: {error.message}"
        return OpsetAnswer(audit, None, (), notes=(reason, *error.notes)), None
    return OpsetAnswer(audit, matrix, _fits(matrix, chosen)), model


def _unless_refused(read: ir.Model | GraphForgeError) -> ir.Model:
    if isinstance(read, GraphForgeError):
        raise read
    return read


def answer_for_model(
    model: ir.Model, *, target: str | None = None, outputs: str | None = None, nms: str | None = None
) -> OpsetAnswer:
    """The answer for a model in canonical form: of what `compile` would deliver at the home opset.

    Args:
        model: the model; edited in place to what would be delivered.
        target: only this runtime.
        outputs, nms: as ``compile`` takes them.

    Raises:
        UsageError: the target is unknown.
    """
    chosen = runtimes(target)
    as_delivered(model, outputs=outputs, nms=nms)
    matrix = opset_matrix(model, forms=_forms_of(chosen))
    return OpsetAnswer(opset_report(model), matrix, _fits(matrix, chosen))


def _forms_of(chosen: Sequence[Runtime]) -> tuple[Form, ...]:
    return tuple(dict.fromkeys(form for runtime in chosen for form in runtime.forms))


def _fits(matrix: OpsetMatrix, chosen: Sequence[Runtime]) -> tuple[Fit, ...]:
    return tuple(_fit(matrix, runtime) for runtime in chosen)


def _fit(matrix: OpsetMatrix, runtime: Runtime) -> Fit:
    readable = [c for c in matrix.cells if c.state is not State.IMPOSSIBLE and runtime.reads(c.opset)]
    found = {cell.opset: (_lacks(cell, runtime, "unsupported"), _lacks(cell, runtime, "unknown")) for cell in readable}
    if not found:
        return Fit(runtime, None, (), (), {}, {})
    # the least is missing, then the least is uncertain, then the newest: newer opsets need fewer nodes
    best = min(found, key=lambda opset: (len(found[opset][0]), len(found[opset][1]), -opset))
    unsupported, unknown = found[best]
    operators = next(cell.operators for cell in readable if cell.opset == best)
    limits = {name: text for name, text in runtime.limits.items() if name in operators}
    lacking = {opset: lacks[0] for opset, lacks in found.items()}
    return Fit(runtime, best, unsupported, unknown, limits, lacking)


def _lacks(cell: Cell, runtime: Runtime, verdict: str) -> tuple[Lack, ...]:
    """What the runtime lacks of the model at one opset, or what is not known: operators, and forms of operators."""
    lacks = {
        name: Lack(name, used.count, used.places)
        for name, used in cell.operators.items()
        if runtime.judge(name, used.version) == verdict
    }
    if verdict == "unsupported":
        for form, used in cell.forms.items():
            if form in runtime.forms and form.operator not in lacks:
                lacks[form.operator] = Lack(form.operator, used.count, used.places, form.because)
    return tuple(lacks.values())
