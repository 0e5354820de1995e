"""The match driver: applies rules to a graph at the cost of the graph, by root operator and worklist."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphforge.errors import InternalError
from graphforge.ir import here, nodes_of
from graphforge.transform.pattern import pattern_depth
from graphforge.transform.rule import NoMatch, Rule

if TYPE_CHECKING:
    from graphforge.transform.rewriter import Rewriter

__all__ = ["apply_rules"]

# A value with more users than this is not news to all of them when one use goes away.
_FEW = 4


def apply_rules(rules: Sequence[Rule], graph: ir.Graph, rewriter: Rewriter) -> int:
    """Apply the rules to the graph and its bodies until none fires; returns how many times one did.

    Every node is looked at once; after a rewrite only the new nodes, the nodes downstream within the depth of the
    deepest pattern, and the nodes that now are the only user of something are looked at again.

    Raises:
        InternalError: the rules undo each other and would go on for ever.
    """
    wanted = {(rule.root.domain, rule.root.op_type) for rule in rules}
    present: set[tuple[str, str]] = set()
    roots: list[ir.Node] = []
    for node in nodes_of(graph):
        key = (node.domain, node.op_type)
        present.add(key)
        if key in wanted:
            roots.append(node)
    # A rule sleeps while the graph lacks one of its operators.
    active, asleep = _awake(rules, present)
    by_root: dict[tuple[str, str], list[Rule]] = {}
    for rule in active:
        by_root.setdefault((rule.root.domain, rule.root.op_type), []).append(rule)
    reach = max((pattern_depth(rule.root) for rule in rules), default=1) - 1
    queue = deque(node for node in roots if (node.domain, node.op_type) in by_root)
    waiting = set(queue)
    limit = 1000 + 20 * len(roots)
    fired = 0

    def push(node: ir.Node) -> None:
        if node not in waiting and (node.domain, node.op_type) in by_root:
            waiting.add(node)
            queue.append(node)

    def wake(nodes: Iterable[ir.Node]) -> None:
        """New operators may wake rules; those are tried everywhere."""
        nonlocal asleep
        fresh = {(node.domain, node.op_type) for node in nodes} - present
        if not fresh or not asleep:
            return
        present.update(fresh)
        awake, asleep = _awake(asleep, present)
        for rule in awake:
            root = (rule.root.domain, rule.root.op_type)
            by_root.setdefault(root, []).append(rule)
            for node in nodes_of(graph):
                if (node.domain, node.op_type) == root:
                    push(node)

    while queue:
        node = queue.popleft()
        waiting.discard(node)
        if node.graph is None:
            continue
        for rule in by_root[node.domain, node.op_type]:
            changed = _try(rule, node, rewriter)
            if changed is None:
                continue
            fired += 1
            if fired > limit:
                raise InternalError(
                    f"{rewriter.pass_name}: {rule.name} has fired {fired} times; the rules undo each other"
                )
            wake(changed[0])
            for again in _affected(changed, reach):
                push(again)
            if node.graph is not None:
                push(node)
            break
    return fired


def _awake(rules: Sequence[Rule], present: set[tuple[str, str]]) -> tuple[list[Rule], list[Rule]]:
    """The rules all of whose operators are present, and the others."""
    active = [rule for rule in rules if rule.operators <= present]
    return active, [rule for rule in rules if not rule.operators <= present]


def _try(rule: Rule, node: ir.Node, rewriter: Rewriter) -> tuple[list[ir.Node], list[ir.Value]] | None:
    """As ``_fire``; an exception of the rule is told with the place in the graph that it was tried at."""
    try:
        return _fire(rule, node, rewriter)
    except Exception as error:
        error.add_note(f"{rule.name} was tried {here(node)}")
        raise


def _fire(rule: Rule, node: ir.Node, rewriter: Rewriter) -> tuple[list[ir.Node], list[ir.Value]] | None:
    """Fire the rule at the node; returns nodes to look at again and values that lost users, None if it did not fire."""
    found = rule.match(node)
    if not isinstance(found, NoMatch):
        found = rule.check(found)
    if isinstance(found, NoMatch):
        if found.reason:
            rewriter.declined(found.reason, found.node or node, rule=rule.name)
        return None
    inputs = [value for inner in found.nodes for value in inner.inputs if value is not None]
    users = [user for inner in found.nodes for value in inner.outputs for user, _ in value._uses]
    before = rewriter.changes
    rewriter.forget_fresh()
    rewriter.rule_starts(rule.name, found.nodes)
    replacement = rule.rewrite(rewriter.builder(node), found)
    if replacement is None:
        changed = rewriter.changes != before
        rewriter.rule_ends(changed)
        return ([node, *users], inputs) if changed else None
    fresh = rewriter.replace(found.nodes, replacement)
    rewriter.rule_ends(True)
    return [*fresh, *users], inputs


def _affected(changed: tuple[list[ir.Node], list[ir.Value]], reach: int) -> list[ir.Node]:
    starts, inputs = changed
    seen = dict.fromkeys(starts)
    frontier = starts
    for value in inputs:
        # Fewer users may mean that the rest is now allowed to fuse what computes it.
        if 0 < len(value._uses) <= _FEW:
            users = [user for user, _ in value._uses]
            seen.update(dict.fromkeys(users))
            frontier = [*frontier, *users]
    for _ in range(reach):
        following = []
        for node in frontier:
            for value in node.outputs:
                for user, _index in value._uses:
                    if user not in seen:
                        seen[user] = None
                        following.append(user)
        frontier = following
    return list(seen)
