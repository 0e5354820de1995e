"""What other runtimes take of ONNX: tables with their sources, and the installed TensorRT, which can be asked.

A table (``tables/*.toml``) names the document it repeats.  What a document does not say is *unknown*, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from graphforge.errors import GraphForgeError, UsageError
from graphforge.targets.tables import Form, facts_of, table_of

__all__ = ["TARGETS", "Runtime", "Verdict", "runtimes"]

Verdict = Literal["supported", "unsupported", "unknown"]

# In the order in which they are shown.
TARGETS = ("onnxruntime", "tensorrt", "magicmind", "openvino", "coreml", "ncnn")


@dataclass(frozen=True)
class Runtime:
    """One runtime, or one release of it.

    Attributes:
        target: short name, one of ``TARGETS``.
        title: what people call it, with its release.
        document: where the facts are from.
        url: the same as an address, "" when there is none.
        evidence: ``documented``, ``measured`` (tried on this project's own machines), ``asked`` (the installed vendor
            library said so) or ``observed`` (in public working samples).
        oldest_opset: lowest opset it reads; None when the document does not say.
        newest_opset: highest opset it reads; None when the document does not say.
        note: what a reader must know, "" when nothing.
        judge: (operator, its version) -> verdict; the version is that of the operator, as in ``Resize-19``.
        limits: operator -> what the document says it takes of it only.
        forms: which nodes it refuses or gets wrong as they are written; there may be another form.
    """

    target: str
    title: str
    document: str
    url: str
    evidence: str
    oldest_opset: int | None
    newest_opset: int | None
    note: str
    judge: Callable[[str, int], Verdict]
    limits: Mapping[str, str] = field(default_factory=dict)
    forms: tuple[Form, ...] = ()

    def reads(self, opset: int) -> bool:
        """Whether nothing that is known speaks against a file of this opset."""
        return (self.oldest_opset or 0) <= opset <= (self.newest_opset or opset)


def runtimes(target: str | None = None) -> list[Runtime]:
    """All runtimes, or those of one target; of somebody else's, given the path of its own table (``*.toml``).

    Raises:
        UsageError: the target is unknown.
    """
    if target is not None and target.endswith(".toml"):
        return _from_table(target)
    if target is not None and target not in TARGETS:
        import difflib

        close = difflib.get_close_matches(target, TARGETS, n=1)
        raise UsageError(
            f"nothing is known of target {target!r}",
            f"did you mean {close[0]!r}?" if close else "",
            "here a target is what runs the file: onnxruntime for most" if target == "onnx" else "",
            f"known: {', '.join(TARGETS)}",
        )
    found = []
    for name in TARGETS if target is None else (target,):
        found += _tensorrt() if name == "tensorrt" else _from_table(name)
    return found


def _from_table(name: str) -> list[Runtime]:
    table = table_of(name)
    supported = frozenset(table.get("supported", "").split())
    unsupported = frozenset(table.get("unsupported", "").split())
    if name == "magicmind":
        from graphforge.targets.magicmind.operators import EVIDENCED, REFUSED

        supported, unsupported = EVIDENCED, frozenset(REFUSED)
    found = []
    for release in _merged(name, table):
        found.append(
            Runtime(
                target=name,
                title=f"{table['title']} {release['version']}" if release else table["title"],
                document=release.get("document", table["document"]),
                url=release.get("url", table["url"]),
                evidence=release.get("evidence", table["evidence"]),
                oldest_opset=table.get("oldest_opset"),
                newest_opset=release.get("newest_opset", table.get("newest_opset")),
                note=release.get("note", table.get("note", "")),
                judge=_judge(table, release, supported, unsupported),
                limits=table.get("limits", {}),
                forms=_forms(name, release),
            )
        )
    return found


def _forms(name: str, release: Mapping[str, Any]) -> tuple[Form, ...]:
    """What this release refuses or gets wrong as it is written."""
    version = release.get("version", "").partition(" to ")[0] or None
    return tuple(form for form in facts_of(name, version).forms if form.wrong)


def _merged(name: str, table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The releases of which the table says different things, the installed one before all others."""
    releases: list[dict[str, Any]] = [dict(release) for release in table.get("release", [{}])]
    if "release" not in table:
        return releases
    facts = facts_of(name)
    here = next(release for release in releases if release["version"] == facts.release)
    others = [release for release in releases if release is not here]
    if facts.version is not None and facts.note:
        here["note"] = f"{facts.note}; {here.get('note', table.get('note', ''))}"
    merged: list[dict[str, Any]] = []
    for release in others:
        last = merged[-1] if merged else {}
        if "missing" in release and all(last.get(key) == release.get(key) for key in ("newest_opset", "missing")):
            last["version"] = f"{release['version']} to {last['version'].rpartition(' ')[2]}"
        else:
            merged.append(release)
    return [here, *merged]


def _judge(
    table: Mapping[str, Any], release: Mapping[str, Any], supported: frozenset[str], unsupported: frozenset[str]
) -> Callable[[str, int], Verdict]:
    missing: Mapping[str, int] = release.get("missing", {})
    unlisted: Verdict = table["unlisted"]
    other_domains: Verdict = table.get("other_domains", "unknown")

    def judge(operator: str, version: int) -> Verdict:
        if "::" in operator:
            return other_domains
        if operator in unsupported or version >= missing.get(operator, version + 1):
            return "unsupported"
        return "supported" if operator in supported else unlisted

    return judge


def _tensorrt() -> list[Runtime]:
    """The installed flavour, which is asked operator by operator; nothing when none is installed."""
    from graphforge.targets.tensorrt.flavour import OLDEST_OPSET, choose_flavour

    try:
        flavour = choose_flavour()
        parser = _parser(flavour.load())
    except GraphForgeError as error:
        return [_absent_tensorrt(error.message)]
    release = ".".join(map(str, flavour.release()))

    def judge(operator: str, version: int) -> Verdict:
        return "supported" if parser.supports_operator(operator.rpartition("::")[2]) else "unsupported"

    return [
        Runtime(
            target="tensorrt",
            title=f"{flavour.title} {release}",
            document="the parser of the installed release, asked operator by operator; opsets from its documentation",
            url="https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md",
            evidence="asked",
            oldest_opset=OLDEST_OPSET,
            newest_opset=flavour.newest_opset(),
            note="that an operator is known does not say that every type and form of it is",
            judge=judge,
            forms=facts_of("tensorrt").forms,
        )
    ]


def _absent_tensorrt(reason: str) -> Runtime:
    return Runtime(
        target="tensorrt",
        title="TensorRT",
        document="none: what it takes is asked of the installed release, and there is none",
        url="",
        evidence="asked",
        oldest_opset=None,
        newest_opset=None,
        note=reason,
        judge=lambda operator, version: "unknown",
    )


def _parser(vendor: Any) -> Any:
    """A parser of an empty network; it needs no GPU.  Everything that it reads lives as long as it does."""
    from graphforge.targets.tensorrt.log import vendor_logger

    logger = vendor_logger(vendor)
    try:
        builder = vendor.Builder(logger)
    except TypeError:  # what its bindings make of a builder that could not start
        raise GraphForgeError("TensorRT is installed, but does not start here") from None
    network = builder.create_network(0)
    parser = vendor.OnnxParser(network, logger)

    class Held:
        held = (builder, network, parser)
        supports_operator = staticmethod(parser.supports_operator)

    return Held
