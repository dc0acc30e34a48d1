"""One trace instead of two: torch's rewriting of what it traced, left out where nothing needs it.

`torch.onnx.export` traces a program a second time to write it in operators that ONNX has, which
takes half of an export. Those of our modules ONNX has as they are, but for casts, renamed here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node

_CAST = torch.ops.aten.to.dtype
# What the decoder and the towers of all families are made of, in every precision.
_IN_ONNX = {
    "aten.add.Tensor", "aten.amax.default", "aten.amin.default",
    "aten.arange.default", "aten.cat.default", "aten.chunk.default", "aten.clamp.default",
    "aten.cos.default", "aten.div.Tensor", "aten.expand.default", "aten.full_like.default",
    "aten.ge.Tensor", "aten.gelu.default", "aten.index.Tensor", "aten.layer_norm.default",
    "aten.matmul.default", "aten.maximum.default", "aten.mean.dim", "aten.mul.Tensor",
    "aten.neg.default", "aten.permute.default", "aten.pow.Tensor_Scalar", "aten.reshape.default",
    "aten.select.int", "aten.sigmoid.default", "aten.silu.default", "aten.sin.default",
    "aten.slice.Tensor", "aten.softmax.int", "aten.sqrt.default", "aten.stack.default",
    "aten.sub.Tensor", "aten.sym_size.int", "aten.t.default", "aten.to.dtype", "aten.transpose.int",
    "aten.unsqueeze.default", "aten.where.Scalar", "aten.zeros_like.default",
    "onnx.Attention.opset23", "onnx.RotaryEmbedding.opset23", "onnx_symbolic._symbolic.default",
}  # fmt: skip
# Checks of sizes, which the exporter drops.
_DROPPED = {"aten._assert_scalar.default", "aten._assert_tensor_metadata.default"}
# What a trace says of a constant, whose value stays as it is.
_NOTHING = {"aten.lift_fresh_copy.default", "aten.detach_.default"}
_KNOWN = _IN_ONNX | _DROPPED | _NOTHING


@contextmanager
def one_trace() -> Iterator[None]:
    """Let programs of known operators through as they were traced; others are rewritten."""
    rewrite: Callable[..., ExportedProgram] = ExportedProgram.run_decompositions

    def run(program: ExportedProgram, *table: Any, **options: Any) -> ExportedProgram:
        return program if _is_in_onnx(program) else rewrite(program, *table, **options)

    ExportedProgram.run_decompositions = run  # type: ignore[method-assign]
    try:
        yield
    finally:
        ExportedProgram.run_decompositions = rewrite  # type: ignore[method-assign]


def _is_in_onnx(program: ExportedProgram) -> bool:
    """Whether ONNX has all operators; if so, casts get the name that the exporter knows."""
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    if not all(_is_known(call) for call in calls):
        return False
    for call in calls:
        if call.target is _CAST:
            call.target = torch.ops.aten._to_copy.default
            call.args, call.kwargs = call.args[:1], {"dtype": call.args[1]}
        elif str(call.target) in _NOTHING:
            call.replace_all_uses_with(call.args[0])
            program.graph.erase_node(call)
    program.graph_module.recompile()
    return True


def _is_known(call: Node) -> bool:
    if not isinstance(call.target, OpOverload):
        return True  # arithmetic of sizes
    is_plain = call.target is not _CAST or (len(call.args) == 2 and not call.kwargs)
    return str(call.target) in _KNOWN and is_plain
