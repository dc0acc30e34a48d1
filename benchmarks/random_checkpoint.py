"""Make a checkpoint folder with random weights: a real architecture, to measure and to try with.

    python benchmarks/random_checkpoint.py tiny -o ckpt                 2 MB, in seconds
    python benchmarks/random_checkpoint.py mid -o ckpt                  12 layers, hidden 768
    python benchmarks/random_checkpoint.py --config DIR -o ckpt         what its config.json says
    python benchmarks/random_checkpoint.py tiny --family qwen3_vl -o ckpt
    python benchmarks/random_checkpoint.py encoder -o vit               a small ViT of 256 x 128

Its answers mean nothing. Without `--tokenizer DIR` a small tokenizer is trained on murank's own
prompt; it gives about as many tokens as the families' own. With `--config`, the tokenizer files of
that folder are used.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from murank.prompt import default_template

hf: Any = transformers  # whose configs carry no types

CHAT_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab": 1024, "hidden": 64, "layers": 3, "heads": 4, "kv_heads": 2, "inner": 96,
        "depth": 3, "width": 32, "vision_heads": 2, "spread": 0.15,
    },
    "mid": {
        "vocab": 151936, "hidden": 768, "layers": 12, "heads": 12, "kv_heads": 2, "inner": 3072,
        "depth": 8, "width": 512, "vision_heads": 8, "spread": 0.03,
    },
}  # fmt: skip
TOKENIZER_FILES = (
    "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "chat_template.json",
    "chat_template.jinja", "preprocessor_config.json",
)  # fmt: skip


def train_tokenizer(more: Sequence[str] = ()) -> Any:
    """Return a byte-level BPE trained on prompts, with the families' special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    template = default_template()
    lines = [template.task_description, template.rules_text, "Query:", " Candidate:", "Yes", "No"]
    lines += ["system\nYou are a helpful assistant.", "user\n", "assistant\n", *more]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(lines * 2, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def shrunken_config(
    family: str, size: str, token_ids: dict[str, int], vocab: int | None = None
) -> tuple[Any, Any]:
    """Return the family's real config class at a small size, and its model class."""
    s = SIZES[size]
    half = s["hidden"] // s["heads"] // 2
    ids = {
        "image_token_id": token_ids["<|image_pad|>"],
        "video_token_id": token_ids["<|video_pad|>"],
        "vision_start_token_id": token_ids["<|vision_start|>"],
        "vision_end_token_id": token_ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }
    text = {
        "vocab_size": vocab or s["vocab"], "hidden_size": s["hidden"],
        "intermediate_size": s["inner"],
        "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv_heads"], "max_position_embeddings": 4096, "rope_theta": 1e6,
        "bos_token_id": None, "eos_token_id": token_ids["<|im_end|>"],
        "pad_token_id": token_ids["<|endoftext|>"],
    }  # fmt: skip
    vision: dict[str, Any] = {
        "depth": s["depth"], "num_heads": s["vision_heads"], "patch_size": 14,
    }  # fmt: skip
    sections = [half // 4, 3 * half // 8, half - half // 4 - 3 * half // 8]
    if family == "qwen2_vl":
        kinds = hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration
        vision |= {"embed_dim": s["width"], "hidden_size": s["hidden"], "mlp_ratio": 4}
    else:
        vision |= {"hidden_size": s["width"], "out_hidden_size": s["hidden"]}
        vision |= {"intermediate_size": 2 * s["width"]}
    if family == "qwen2_5_vl":
        kinds = hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLForConditionalGeneration
        vision |= {"fullatt_block_indexes": [s["depth"] - 1], "window_size": 112}
    if family == "qwen3_vl":
        kinds = hf.Qwen3VLConfig, hf.Qwen3VLForConditionalGeneration
        sections = [half - 2 * (half // 3), half // 3, half // 3]
        text["head_dim"] = 2 * half
        vision |= {"patch_size": 16, "num_position_embeddings": 144}
        vision |= {"deepstack_visual_indexes": [0, 1]}
    kind = "default" if family == "qwen3_vl" else "mrope"
    text["rope_scaling"] = {"type": kind, "rope_type": "default", "mrope_section": sections}
    config_class, model_class = kinds
    return config_class(text_config=text, vision_config=vision, **ids), model_class


def make_checkpoint(
    folder: Path, family: str = "qwen2_vl", size: str = "tiny", tokenizer: Path | None = None
) -> None:
    """Write model, tokenizer and chat template as the families' own folders have them."""
    folder.mkdir(parents=True)
    if tokenizer is None:
        made = train_tokenizer()
        made.save_pretrained(folder)
    else:
        copy_tokenizer(tokenizer, folder)
        made = hf.AutoTokenizer.from_pretrained(folder)
    token_ids = {token: made.convert_tokens_to_ids(token) for token in SPECIAL}
    vocab = None if tokenizer is None else SIZES["mid"]["vocab"]  # all of its words
    config, model_class = shrunken_config(family, size, token_ids, vocab)
    torch.manual_seed(0)
    model = model_class(config).eval()
    randomise(model, SIZES[size]["spread"])
    model.save_pretrained(folder)


def randomise(model: torch.nn.Module, spread: float) -> None:
    """Give every parameter a value that matters: biases and norms too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            is_norm = value.ndim == 1 and not name.endswith("bias")
            value.copy_(1 + 0.2 * noise if is_norm else spread * noise)


def make_from_config(folder: Path, source: Path) -> None:
    """Write random weights, bfloat16, of the architecture that a config.json names."""
    config = hf.AutoConfig.from_pretrained(source)
    name = config.architectures[0]
    copy_tokenizer(source, folder)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = getattr(hf, name)(config)
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy what a folder has of tokenizer, chat template and image processor."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def make_encoder(folder: Path) -> None:
    """Write a small ViT for 256 x 128 crops."""
    torch.manual_seed(0)
    config = hf.ViTConfig(
        image_size=(256, 128), patch_size=32, hidden_size=64, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=128,
    )  # fmt: skip
    hf.ViTModel(config, add_pooling_layer=False).eval().save_pretrained(folder)
    preprocessing = {
        "size": {"height": 256, "width": 128}, "resample": 2,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))


def main() -> None:
    """Make what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=[*SIZES, "encoder"], nargs="?")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--family", choices=FAMILIES, default="qwen2_vl")
    parser.add_argument("--tokenizer", type=Path, help="folder of a family's tokenizer")
    parser.add_argument("--config", type=Path, help="folder with config.json and tokenizer")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output} exists")
    if (arguments.config is None) == (arguments.what is None):
        parser.error("name a size, or pass --config")
    if arguments.config is not None:
        make_from_config(arguments.output, arguments.config)
    elif arguments.what == "encoder":
        make_encoder(arguments.output)
    else:
        make_checkpoint(arguments.output, arguments.family, arguments.what, arguments.tokenizer)
    print(arguments.output)


if __name__ == "__main__":
    main()
