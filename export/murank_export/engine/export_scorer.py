"""The MLLM's part of an export: vision and decoder graphs, baked prompt, parity."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import save

from murank import InputError, ParityError
from murank.engine.golden import TOLERANCE, resized
from murank.engine.neighbours import scorer_fault
from murank.folder.manifest import AnswerIds, ScorerPart, Shapes
from murank.folder.precision import ARITHMETIC
from murank.images import Preprocessing
from murank.prompt import PromptTemplate
from murank_export.engine.export_settings import ExportSettings
from murank_export.engine.golden_images import golden_images
from murank_export.engine.parity import merge_parity, scorer_on_cpu, scorer_parity
from murank_export.engine.steps import NOTE, Steps
from murank_export.graphs.decoder import Decoder
from murank_export.graphs.geometry import Grid
from murank_export.graphs.layers import Inputs
from murank_export.graphs.onnx_file import export_decoder, export_vision
from murank_export.graphs.vision import VisionTower
from murank_export.mllm.activations import collect_activations
from murank_export.mllm.adapter import Adapter, check_image_size
from murank_export.mllm.checkpoint import Checkpoint, load_checkpoint
from murank_export.mllm.merge import Applied, apply_adapter
from murank_export.mllm.prefix import bake_prompt
from murank_export.mllm.reference import Reference, ask
from murank_export.mllm.smoothing import SMOOTHED, smooth
from murank_export.mllm.tokens import PromptTokens, answer_ids, prompt_text, prompt_tokens

VISION, DECODER, PROMPT = "onnx/vision.onnx", "onnx/decoder.onnx", "prompt.safetensors"
_LEAST_SHARE = 0.5  # of the first token's probability: below, another token may be the likeliest
_LARGEST_FLOAT16 = 60_000.0  # with a little room: 65504 is the last


@dataclass(frozen=True)
class ExportedScorer:
    """What was written, and what it was measured by."""

    part: ScorerPart
    golden: dict[str, NDArray[Any]]
    parity: dict[str, Any]


@dataclass(frozen=True)
class _Question:
    """A loaded MLLM and what it is asked."""

    checkpoint: Checkpoint
    template: PromptTemplate
    tokens: PromptTokens
    answers: tuple[int, int]  # ids of No and Yes
    grid: Grid
    size: tuple[int, int]  # height, width of an image


def export_scorer(
    settings: ExportSettings,
    adapter: Adapter | None,
    template: PromptTemplate,
    stage: Path,
    steps: Steps,
) -> ExportedScorer:
    """Write the graphs and the prompt of `settings.mllm` into `stage`.

    The model is taken apart on the way, layer by layer, so that it is never in memory twice; what
    PyTorch has to say is asked before.
    """
    question, applied = _load(settings, adapter, template, steps)
    images = golden_images(1 + settings.parity_pairs)
    query, *candidates = resized(images, _preprocessing(question))
    with steps.step("ask the PyTorch model"):
        reference = _ask(question, query, candidates)
    answered, measured = reference, {}
    if applied is not None:
        with steps.step("merge adapter"):
            question.checkpoint.model = applied.merge()
            answered = _ask(question, query, candidates)
        measured = {"adapter_max_abs": merge_parity(reference.logits, answered.logits)}
    measured["largest_activation"] = answered.largest_activation
    measured["answer_share"] = answered.answer_share
    for note in _answer_notes(question, answered):
        steps.report(f"{NOTE}{note}")
    _check_float16(settings, answered)
    inputs = _activations(settings, question, steps)
    with steps.step("bake prompt"):
        baked = bake_prompt(
            question.checkpoint.model, question.tokens, question.grid, settings.precision
        )
        # By way of Python, which tells a full disk as an OSError.
        (stage / PROMPT).write_bytes(save({name: tensor.numpy() for name, tensor in baked.items()}))
    shapes = _write_graphs(settings, question, inputs, stage, steps)
    part = _part(settings, question, shapes)
    with steps.step("measure parity"):
        with scorer_on_cpu(stage, part, settings.precision) as scorer:
            found = scorer.logits(query, candidates)
            odds = scorer.log_odds(found)
            fault = scorer_fault(scorer, query, candidates, TOLERANCE[settings.precision])
        if fault is not None:
            raise ParityError(f"the exported MLLM {fault}; please report it")
        parity = scorer_parity(reference.logits, found, part.tau, settings.precision)
    golden: dict[str, NDArray[Any]] = {
        "query": images[:1],
        "candidates": images[1:],
        "log_odds": odds,
    }
    return ExportedScorer(part, golden, parity | measured)


def _ask(question: _Question, query: Any, candidates: Any) -> Reference:
    return ask(
        question.checkpoint, question.tokens, question.grid, question.answers, query, candidates
    )


def _load(
    settings: ExportSettings, adapter: Adapter | None, template: PromptTemplate, steps: Steps
) -> tuple[_Question, Applied | None]:
    """Load the MLLM, with the adapter beside its weights."""
    if settings.mllm is None:
        raise ValueError("settings.mllm is None")
    with steps.step("load checkpoint"):
        checkpoint = load_checkpoint(settings.mllm)
        grid, size = checkpoint.grid(settings.image_size)
        if adapter is not None:
            check_image_size(adapter, size, force=settings.force)
        tokens = prompt_tokens(checkpoint, template, settings.layout)
        text = prompt_text(checkpoint, template, settings.layout)
        answers = answer_ids(checkpoint.tokenizer, template.answers, text)
        applied = None
        if adapter is not None:
            applied = apply_adapter(
                checkpoint.model,
                adapter,
                lora_alpha=settings.lora_alpha,
                lora_rank=settings.lora_rank,
            )
            for note in applied.notes:
                steps.report(f"{NOTE}{note}")
    return _Question(checkpoint, template, tokens, answers, grid, size), applied


def _answer_notes(question: _Question, answered: Reference) -> Iterator[str]:
    """Tell where the model would rather say something else."""
    template = question.template
    words = [template.answers.same, template.answers.different]
    asked, said = template.whole_text, " and ".join(f'"{word}"' for word in words)
    if not all(word in asked for word in words):
        yield (
            f"the prompt asks for no {said}, which are read as the answer: if the model was "
            'trained to say other words, name them in the prompt file ("answers")'
        )
    if answered.answer_share < _LEAST_SHARE:
        other = question.checkpoint.tokenizer.decode([answered.likeliest])
        yield (
            f"{said} are {answered.answer_share:.2%} of what the model would say first about the "
            f'golden pairs, the likeliest is {other!r}: other answer words ("answers" in the '
            "prompt file), another prompt or chat template than it was trained with, or a model "
            "that thinks first"
        )


def _check_float16(settings: ExportSettings, reference: Reference) -> None:
    """Refuse what would overflow. CPUs run float16 graphs in float32 and would not show it."""
    if ARITHMETIC[settings.precision].floats == "float16" and (
        reference.largest_activation > _LARGEST_FLOAT16
    ):
        raise InputError(
            f"activations of this model reach {reference.largest_activation:.0f}, more than "
            "float16 holds: export with --dtype bf16 (GPUs), int8 (CPUs) or fp32"
        )


def _activations(settings: ExportSettings, question: _Question, steps: Steps) -> Inputs | None:
    """What the linear layers are given, where their weights will be rounded for it.

    Where they get int8 steps of one size for all, the model is smoothed, and says the same.
    """
    if not ARITHMETIC[settings.precision].rounded:
        return None
    with steps.step("collect activations"):
        inputs = collect_activations(
            question.checkpoint, question.tokens, question.grid, _preprocessing(question)
        )
    if settings.precision in SMOOTHED:
        with steps.step("smooth activations"):
            smooth(question.checkpoint.model, inputs)
    return inputs


def _write_graphs(
    settings: ExportSettings,
    question: _Question,
    inputs: Inputs | None,
    stage: Path,
    steps: Steps,
) -> Shapes:
    checkpoint, grid, tokens = question.checkpoint, question.grid, question.tokens
    model, precision = checkpoint.model, settings.precision
    hidden = int(model.config.text_config.hidden_size)
    with steps.step("vision graph"):
        tower = VisionTower(
            model.model.visual, grid, precision, inputs,
            mean=checkpoint.mean, std=checkpoint.std, portable=settings.portable,
        )  # fmt: skip
        export_vision(tower, stage / VISION, question.size)
        del tower
    with steps.step("decoder graph"):
        decoder = Decoder(
            model, question.answers, precision, inputs, portable=settings.portable
        )  # fmt: skip
        del model
        checkpoint.release()
        export_decoder(decoder, stage / DECODER, vision_tokens=grid.num_tokens, hidden=hidden)
    return Shapes(
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


def _preprocessing(question: _Question) -> Preprocessing:
    """Resize as the families' processors do."""
    return Preprocessing(*question.size, "bicubic")


def _part(settings: ExportSettings, question: _Question, shapes: Shapes) -> ScorerPart:
    mean, std = question.checkpoint.mean, question.checkpoint.std
    return ScorerPart(
        vision=VISION,
        decoder=DECODER,
        prompt=PROMPT,
        preprocessing=_preprocessing(question),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        layout=settings.layout,
        template=question.template.to_json(),
        template_sha256=question.template.sha256,
        answer_ids=AnswerIds(no=question.answers[0], yes=question.answers[1]),
        tau=settings.tau,
        max_pairs=settings.max_pairs,
        shapes=shapes,
    )
