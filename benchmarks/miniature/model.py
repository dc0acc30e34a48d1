"""The miniature MLLM: Qwen2-VL's architecture in small, and its forward pass for many pairs.

The forward pass here runs the Hugging Face layers' own weights over a static prefix once, over each
query once and over each pair's suffix, as the exported decoder does; `tests` hold it to the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import transformers
from miniature.pool import SIZE
from random_checkpoint import SPECIAL, train_tokenizer
from torch import Tensor

from murank.prompt import Layout, PromptTemplate, load_template
from murank_export.graphs.geometry import Grid
from murank_export.mllm.checkpoint import Checkpoint, load_checkpoint
from murank_export.mllm.tokens import PromptTokens, answer_ids, prompt_tokens

HERE = Path(__file__).parent
PROMPT, BARE_PROMPT = HERE / "prompt.json", HERE / "bare_prompt.json"
PATCH, MERGE = 16, 2
GRID = Grid(SIZE[0] // PATCH, SIZE[1] // PATCH, PATCH, MERGE)
HIDDEN, LAYERS, HEADS, KV_HEADS, INNER = 192, 4, 6, 2, 320
DEPTH, WIDTH, VISION_HEADS = 5, 192, 6  # wide: an image goes through it once, a token often

# What writes into the residual stream.
_OUTWARD = ("o_proj.weight", "down_proj.weight", "attn.proj.weight", "fc2.weight")
Rotary = tuple[Tensor, Tensor]


def make_base(folder: Path, *, seed: int) -> None:
    """Write a checkpoint folder with random weights."""
    tokenizer = train_tokenizer(_texts())
    tokenizer.save_pretrained(folder)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    half = HIDDEN // HEADS // 2
    text = {
        "vocab_size": len(tokenizer), "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "max_position_embeddings": 4096, "rope_theta": 10000.0,
        "rope_scaling": {
            "type": "mrope", "rope_type": "default",
            "mrope_section": [half - 2 * (half // 3), half // 3, half // 3],
        },
        "bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "tie_word_embeddings": True,
        "pad_token_id": ids["<|endoftext|>"],
    }  # fmt: skip
    vision = {
        "depth": DEPTH, "embed_dim": WIDTH, "hidden_size": HIDDEN, "num_heads": VISION_HEADS,
        "mlp_ratio": 2, "patch_size": PATCH,
    }  # fmt: skip
    hf: Any = transformers
    config = hf.Qwen2VLConfig(
        text_config=text, vision_config=vision, image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"], tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = hf.Qwen2VLForConditionalGeneration(config)
    with torch.no_grad():
        for name, value in model.model.named_parameters():
            if value.ndim == 2:  # 0.02 is for wide layers: too little here to learn by
                value.normal_(0, 0.025 if name.endswith(_OUTWARD) else 0.05)
        for layer in model.model.language_model.layers:
            # A unit then starts as a square, and that of a sum of two images holds their product.
            layer.mlp.gate_proj.weight.copy_(layer.mlp.up_proj.weight)
    model.save_pretrained(folder)


def _texts() -> list[str]:
    templates = [load_template(PROMPT), load_template(BARE_PROMPT)]
    return [text for one in templates for text in (one.task_description, one.rules_text)]


@dataclass(frozen=True)
class Question:
    """A prompt as the model sees it."""

    tokens: PromptTokens
    answers: tuple[int, int]  # token ids of No and Yes
    end: int  # token id of the end of a turn


def question(checkpoint: Checkpoint, template: PromptTemplate, layout: Layout) -> Question:
    """Tokenise a prompt."""
    end = int(checkpoint.model.config.text_config.eos_token_id)
    tokens = prompt_tokens(checkpoint, template, layout)
    return Question(tokens, answer_ids(checkpoint.tokenizer), end)


def load_base(folder: Path) -> Checkpoint:
    """Load a checkpoint for training."""
    return load_checkpoint(folder)


class Vision:
    """The vision tower over images of the fixed grid: [N,3,H,W] in [0,255] -> tokens [N,T,H]."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.tower = checkpoint.model.model.visual
        self.mean = torch.tensor(checkpoint.mean).reshape(1, 3, 1, 1)
        self.std = torch.tensor(checkpoint.std).reshape(1, 3, 1, 1)
        rows, columns = GRID.rows // MERGE, GRID.columns // MERGE
        order = torch.arange(GRID.rows * GRID.columns).reshape(rows, MERGE, columns, MERGE)
        self.order = order.transpose(1, 2).reshape(-1)  # row-major patch of each place
        quarter = WIDTH // VISION_HEADS // 4
        inverse = 1 / 10000 ** (torch.arange(quarter) / quarter)
        down, across = self.order // GRID.columns, self.order % GRID.columns
        angles = torch.cat([down[:, None] * inverse, across[:, None] * inverse], 1)
        angles = torch.cat([angles, angles], 1)
        self.rotary = angles.cos(), angles.sin()

    def __call__(self, pixels: Tensor) -> Tensor:
        tower, count = self.tower, len(pixels)
        x = (pixels.float() / 255 - self.mean) / self.std
        x = x.reshape(count, 3, GRID.rows, PATCH, GRID.columns, PATCH).permute(0, 2, 4, 1, 3, 5)
        x = x.reshape(count, GRID.rows * GRID.columns, -1)[:, self.order]
        kernel = tower.patch_embed.proj.weight.sum(2)  # of two equal frames
        h = F.linear(x, kernel.reshape(len(kernel), -1))
        for block in tower.blocks:
            qkv = block.attn.qkv(block.norm1(h)).reshape(count, h.shape[1], 3, VISION_HEADS, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            o = F.scaled_dot_product_attention(_turn(q, self.rotary), _turn(k, self.rotary), v)
            h = h + block.attn.proj(o.transpose(1, 2).reshape(h.shape))
            h = h + block.mlp(block.norm2(h))
        tokens: Tensor = tower.merger(h.reshape(-1, WIDTH)).reshape(count, GRID.num_tokens, HIDDEN)
        return tokens


@dataclass
class Answers:
    """What a batch of pairs was answered."""

    words: Tensor  # [B,K,V] logits of the first answer token
    next_words: Tensor  # [B,K,V] of the token behind a given answer; without one, as `words`
    logits: Tensor  # [B,K,2] those of No and Yes
    states: Tensor  # [B,K,H] what the first answer token is read from
    query: Tensor  # [B,H] hidden state behind the query image, inside the model
    candidates: Tensor  # [B,K,H] the same behind each candidate image


def ask_many(
    model: Any,
    asked: Question,
    query: Tensor,
    candidates: Tensor,
    *,
    said: Tensor | None = None,
    at: int = 2,
) -> Answers:
    """Answer B queries with K candidates each, from their vision tokens [B,T,H] and [B,K,T,H].

    `said` are answers [B,K] (token ids) to go on from; `at` is the layer before which the hidden
    states behind the images are taken.
    """
    text, tokens = model.model.language_model, asked.tokens
    table = text.embed_tokens.weight
    batch, count = candidates.shape[:2]
    between, behind = table[list(tokens.between)], table[list(tokens.behind)]
    one = torch.cat([query, between.expand(batch, -1, -1)], 1)
    each = torch.cat([candidates, behind.expand(batch, count, -1, -1)], 2)
    if said is not None:
        each = torch.cat([each, table[said][:, :, None]], 2)
    size, first = each.shape[2], one.shape[1]
    own = torch.cat([one, each.flatten(1, 2)], 1)  # [B, first + K * size, H]
    static = table[list(tokens.static)][None]
    places = list(tokens.positions(GRID))
    if said is not None:
        places[2] = torch.cat([places[2], places[2][:, -1:] + 1], 1)
    turn_static, turn_one, turn_each = (_rotary(place) for place in places)
    cosine, sine = (
        torch.cat([a, b.repeat(count, 1)]) for a, b in zip(turn_one, turn_each, strict=True)
    )
    mask = _mask(static.shape[1], first, count, size)
    taken = None
    for number, layer in enumerate(text.layers):
        if number == at:
            taken = own
        x, y = layer.input_layernorm(static), layer.input_layernorm(own)
        sq, sk, sv = _qkv(layer.self_attn, x, turn_static)
        q, k, v = _qkv(layer.self_attn, y, (cosine, sine))
        k = torch.cat([sk.expand(batch, -1, -1, -1), k], 2)
        v = torch.cat([sv.expand(batch, -1, -1, -1), v], 2)
        if number + 1 < len(text.layers):
            o = F.scaled_dot_product_attention(sq, sk, sv, is_causal=True)
            static = static + layer.self_attn.o_proj(_join(o))
            static = static + layer.mlp(layer.post_attention_layernorm(static))
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        own = own + layer.self_attn.o_proj(_join(o))
        own = own + layer.mlp(layer.post_attention_layernorm(own))
    suffixes = own[:, first:].reshape(batch, count, size, -1)
    states, next_states = (
        text.norm(suffixes[:, :, place]) for place in (-1 if said is None else -2, -1)
    )
    words, next_words = states @ table.T, next_states @ table.T
    assert taken is not None
    image = GRID.num_tokens
    return Answers(
        words,
        next_words,
        words[..., list(asked.answers)],
        states,
        taken[:, image],
        taken[:, first:].reshape(batch, count, size, -1)[:, :, image],
    )


def _qkv(attention: Any, x: Tensor, turn: Rotary) -> tuple[Tensor, Tensor, Tensor]:
    def heads(y: Tensor, count: int) -> Tensor:
        return y.reshape(*y.shape[:2], count, -1).transpose(1, 2)

    q = _turn(heads(attention.q_proj(x), HEADS), turn)
    k = _turn(heads(attention.k_proj(x), KV_HEADS), turn)
    v = heads(attention.v_proj(x), KV_HEADS)
    share = HEADS // KV_HEADS
    return q, k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)


def _join(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _turn(x: Tensor, rotary: Rotary) -> Tensor:
    cosine, sine = rotary
    half = x.shape[-1] // 2
    return x * cosine + torch.cat([-x[..., half:], x[..., :half]], -1) * sine


def _rotary(positions: Tensor) -> Rotary:
    """M-RoPE: each part of the frequencies turns by one of the three axes; [n,D] each."""
    size = HIDDEN // HEADS
    inverse = 1 / 10000 ** (torch.arange(0, size, 2) / size)
    angles = positions[:, :, None].float() * inverse
    angles = torch.cat([angles, angles], -1)
    half = size // 2
    sections = [half - 2 * (half // 3), half // 3, half // 3] * 2
    parts = [part[i % 3] for i, part in enumerate(torch.split(angles, sections, -1))]
    turned = torch.cat(parts, -1)
    return turned.cos(), turned.sin()


def _mask(static: int, first: int, count: int, size: int) -> Tensor:
    """[first + K * size, static + first + K * size]: causal, and no pair sees another."""
    block = torch.cat([torch.zeros(first), torch.arange(1, count + 1).repeat_interleave(size)])
    place = torch.arange(len(block))
    own = (place[:, None] >= place) & ((block == 0) | (block[:, None] == block))
    return torch.cat([torch.ones(len(block), static, dtype=torch.bool), own], 1)
