"""From a module to an ONNX file with external weights, batch as the only free dimension."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from murank.folder.kv_names import past_names, present_names
from murank_export.graphs.attention import OPSET as ATTENTION_OPSET
from murank_export.graphs.attention import has_fused
from murank_export.graphs.decoder import Decoder
from murank_export.graphs.one_trace import one_trace
from murank_export.graphs.qdq import OPSET as QDQ_OPSET
from murank_export.graphs.qdq import has_qdq, pack_int4
from murank_export.graphs.vision import VisionTower
from murank_export.sources.quiet import quiet_exporter

OPSET = 18
_MOST = 4096  # largest free dimension that the graphs are traced for


def export_vision(tower: VisionTower, file: Path, size: tuple[int, int]) -> None:
    """Write images [B,3,H,W] uint8 -> tokens [B,levels,T,H]."""
    example = torch.zeros(3, 3, *size, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=_MOST)
    _export(tower, (example,), file, ["images"], ["tokens"], ({0: batch},))


def export_decoder(decoder: Decoder, file: Path, *, vision_tokens: int, hidden: int) -> None:
    """Write the decoder; inputs and outputs are named by `decoder_names`."""
    given, queries, candidates, behind, prefix = decoder.host_dtype, 2, 3, 5, 7
    cache = (queries, decoder.kv_heads, prefix, decoder.head_dim)
    example = (
        torch.zeros(queries, candidates, decoder.levels, vision_tokens, hidden, dtype=given),
        torch.zeros(behind, hidden, dtype=given),
        torch.zeros(3, vision_tokens + behind, dtype=torch.int64),
        tuple(torch.zeros(cache, dtype=decoder.dtype) for _ in range(2 * decoder.num_layers)),
    )
    free = {
        name: torch.export.Dim(name, min=1, max=_MOST)
        for name in ("queries", "candidates", "behind", "prefix")
    }
    shapes = (
        {0: free["queries"], 1: free["candidates"]},
        {0: free["behind"]},
        {1: free["behind"] + vision_tokens},
        tuple({0: free["queries"], 2: free["prefix"]} for _ in range(2 * decoder.num_layers)),
    )
    inputs, outputs = decoder_names(decoder.num_layers)
    _export(decoder, example, file, inputs, outputs, shapes)


def decoder_names(num_layers: int) -> tuple[list[str], list[str]]:
    """Return the names of the decoder's inputs and outputs, in order."""
    return (
        ["vision", "text", "position_ids", *past_names(num_layers)],
        ["logits", *present_names(num_layers)],
    )


def _export(
    module: nn.Module,
    example: tuple[Any, ...],
    file: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: tuple[Any, ...],
) -> None:
    # Its keys, made of symbolic sizes, cost a quarter of the time; the graph is the same.
    no_cache = torch._dynamo.config.patch(fake_tensor_cache_enabled=False)
    with torch.inference_mode(), quiet_exporter(), no_cache, one_trace():
        program: Any = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=_opset(module),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
    _strip_provenance(program.model)
    pack_int4(program.model)
    program.save(str(file), external_data=True)


def _opset(module: nn.Module) -> int:
    if has_fused(module):
        return ATTENTION_OPSET
    return QDQ_OPSET if has_qdq(module) else OPSET


def _strip_provenance(model: Any) -> None:
    """Drop the exporter's notes: source paths of the build machine, and most of the file's size."""
    for part in (model, model.graph, *model.graph.all_nodes()):
        part.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.metadata_props.clear()
