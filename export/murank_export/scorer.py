"""The MLLM's part of an export: vision and decoder graphs, baked prompt, parity."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.engine.golden import golden_scorer
from murank.engine.manifest import AnswerIds, ScorerPart, Shapes
from murank.engine.session import SessionSettings
from murank.images import Preprocessing
from murank.prompt import PromptTemplate
from murank_export._steps import Steps
from murank_export.golden import golden_images
from murank_export.graphs.decoder import Decoder
from murank_export.graphs.geometry import Grid
from murank_export.graphs.layers import float_dtype
from murank_export.graphs.onnx_file import export_decoder, export_vision
from murank_export.graphs.vision import VisionTower
from murank_export.mllm.adapter import Adapter
from murank_export.mllm.checkpoint import Checkpoint, load_checkpoint
from murank_export.mllm.merge import merge_adapter
from murank_export.mllm.prefix import bake_prompt
from murank_export.mllm.reference import pair_logits
from murank_export.mllm.tokens import PromptTokens, answer_ids, prompt_tokens
from murank_export.parity import scorer_parity
from murank_export.settings import ExportSettings

VISION, DECODER, PROMPT = "onnx/vision.onnx", "onnx/decoder.onnx", "prompt.safetensors"


def export_scorer(
    settings: ExportSettings,
    folder: Path,
    adapter: Adapter | None,
    template: PromptTemplate,
    stage: Path,
    golden: dict[str, NDArray[Any]],
    steps: Steps,
) -> tuple[ScorerPart, dict[str, Any]]:
    """Write the graphs and the prompt into `stage`; return the manifest's part and the parity.

    The model is taken apart on the way, layer by layer, so that it is never in memory twice; what
    PyTorch has to say is asked before.
    """
    with steps.step("load checkpoint"):
        checkpoint = load_checkpoint(folder)
        grid, size = checkpoint.grid(settings.image_size)
        tokens = prompt_tokens(checkpoint, template, settings.layout)
        answers = answer_ids(checkpoint.tokenizer)
    if adapter is not None:
        with steps.step("merge adapter"):
            checkpoint.model = merge_adapter(
                checkpoint.model,
                adapter,
                lora_alpha=settings.lora_alpha,
                lora_rank=settings.lora_rank,
            )
    with steps.step("ask the PyTorch model"):
        images = golden_images(1 + settings.parity_pairs, *size)
        golden |= {"query": images[0], "candidates": images[1:]}
        wanted = pair_logits(checkpoint, tokens, grid, answers, images[0], images[1:])
    with steps.step("bake prompt"):
        dtype = float_dtype(settings.precision)
        baked = bake_prompt(checkpoint.model, tokens, grid, dtype)
        _save_tensors({name: tensor.numpy() for name, tensor in baked.items()}, stage / PROMPT)
    part = _write_graphs(settings, checkpoint, grid, size, tokens, answers, template, stage, steps)
    with steps.step("measure parity"):
        scorer = golden_scorer(stage, part, SessionSettings("cpu"))
        found = scorer.logits(images[0], list(images[1:]))
        golden |= {"logits": found, "torch_logits": wanted}
        mu = scorer.mu(wanted), scorer.mu(found)
        return part, scorer_parity(wanted, found, *mu, settings.precision)


def _write_graphs(
    settings: ExportSettings,
    checkpoint: Checkpoint,
    grid: Grid,
    size: tuple[int, int],
    tokens: PromptTokens,
    answers: tuple[int, int],
    template: PromptTemplate,
    stage: Path,
    steps: Steps,
) -> ScorerPart:
    model, precision = checkpoint.model, settings.precision
    hidden = int(model.config.text_config.hidden_size)
    with steps.step("vision graph"):
        tower = VisionTower(
            model.model.visual, grid, precision, mean=checkpoint.mean, std=checkpoint.std
        )
        export_vision(tower, stage / VISION, size)
        del tower
    with steps.step("decoder graph"):
        decoder = Decoder(model, answers, precision)
        del model
        checkpoint.release()
        export_decoder(decoder, stage / DECODER, vision_tokens=grid.num_tokens, hidden=hidden)
    shapes = Shapes(
        layers=decoder.num_layers,
        kv_heads=decoder.kv_heads,
        head_dim=decoder.head_dim,
        hidden=hidden,
        levels=decoder.levels,
        vision_tokens=grid.num_tokens,
        static_tokens=len(tokens.static),
        prefill_tokens=grid.num_tokens + len(tokens.between),
        suffix_tokens=grid.num_tokens + len(tokens.behind),
    )
    return ScorerPart(
        vision=VISION,
        decoder=DECODER,
        prompt=PROMPT,
        preprocessing=Preprocessing(*size, "bicubic"),
        mean=(checkpoint.mean[0], checkpoint.mean[1], checkpoint.mean[2]),
        std=(checkpoint.std[0], checkpoint.std[1], checkpoint.std[2]),
        layout=settings.layout,
        template=template.to_json(),
        template_sha256=template.sha256,
        answer_ids=AnswerIds(no=answers[0], yes=answers[1]),
        tau=settings.tau,
        max_pairs=settings.max_pairs,
        shapes=shapes,
    )


def _save_tensors(arrays: dict[str, NDArray[Any]], file: Path) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file)
