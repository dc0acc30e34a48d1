"""What the runtime needs of the prompt: baked once, so that it has no tokenizer and no table."""

from typing import Any

import torch
from torch import Tensor

from murank.folder.kv_names import past_names
from murank.folder.precision import Precision
from murank_export.graphs.geometry import Grid
from murank_export.graphs.layers import float_dtype, host_dtype
from murank_export.mllm.tokens import PromptTokens


def bake_prompt(
    model: Any, tokens: PromptTokens, grid: Grid, precision: Precision
) -> dict[str, Tensor]:
    """Return text embeddings, positions, and K/V of the static prefix.

    prefill_text, suffix_text            [B,H]             behind the query / the candidate image
    prefill_positions, suffix_positions  [3,T+B] int64
    past_key_i, past_value_i             [1,KVH,P,D]       of the static prefix

    Floats are of `host_dtype`, and values of `float_dtype`: the device rounds them no further.
    """
    dtype, kept_as = float_dtype(precision), host_dtype(precision)
    static, prefill, suffix = tokens.positions(grid)
    embed = model.get_input_embeddings()
    baked: dict[str, Tensor] = {}
    with torch.inference_mode():
        for name, ids in (("prefill_text", tokens.between), ("suffix_text", tokens.behind)):
            baked[name] = embed(torch.tensor(ids)).to(dtype).to(kept_as)
        baked |= {"prefill_positions": prefill, "suffix_positions": suffix}
        cache = model.model.language_model(
            inputs_embeds=embed(torch.tensor([tokens.static])),
            position_ids=static[:, None],
            use_cache=True,
        ).past_key_values
        pairs = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        names = past_names(len(cache.layers))
        for name, part in zip(names, pairs, strict=True):
            baked[name] = part.to(dtype).to(kept_as)
    return {name: tensor.contiguous() for name, tensor in baked.items()}
