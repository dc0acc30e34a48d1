"""What torch's exporter does over and over: left out, and graphs stay the same to the byte."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from onnxscript.rewriter._basics import MatchResult
from onnxscript.rewriter._matcher import SimplePatternMatcher
from torch.onnx._internal.exporter._registration import ONNXRegistry
from torch.onnx._internal.fx.passes import type_promotion

Method = Callable[..., Any]
_Interpreter = type_promotion._TypePromotionInterpreter


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Save two seconds of seven an engine, and a second a graph by one table of operators."""
    made = functools.cache(ONNXRegistry.from_torchlib)
    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(made))
    patch.setattr(SimplePatternMatcher, "match", _match_by_name(SimplePatternMatcher.match))
    patch.setattr(_Interpreter, "run_node", _promote_only(_Interpreter.run_node))


def as_it_is(patch: pytest.MonkeyPatch) -> None:
    """Take torch's own ways again."""
    for owner, name in ((SimplePatternMatcher, "match"), (_Interpreter, "run_node")):
        patch.setattr(owner, name, getattr(owner, name).__wrapped__)


def _match_by_name(match: Method) -> Method:
    """Ask a rule only where a node has the operator that its pattern begins with."""

    @functools.wraps(match)
    def by_name(self: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        wanted = self.pattern.output_nodes[0].op_identifier()
        if wanted not in (None, node.op_identifier()):
            return MatchResult().fail("another operator")
        return match(self, model, graph, node, **options)

    return by_name


def _promote_only(run_node: Method) -> Method:
    """Insert casts, and take what a node gives from its trace: computed again it is the same."""

    @functools.wraps(run_node)
    def promote(self: Any, node: torch.fx.Node) -> Any:
        if node.op != "call_function" or "val" not in node.meta:
            return run_node(self, node)
        with self._set_current_node(node):
            rule = type_promotion.get_type_promotion_rule(node, self.type_promotion_table)
            if rule is not None:
                self._maybe_promote_node(node, rule)
        return node.meta["val"]

    return promote
