"""The image processors of transformers that work with PIL, and need no torchvision."""

import importlib
from typing import Any

import transformers

hf: Any = transformers


def pil_processor(model: str, name: str) -> Any:
    """Return a class, as "clip" and "CLIPImageProcessor"; transformers 5 has it elsewhere."""
    if hf.__version__.startswith("4."):
        return getattr(hf, name)
    module = importlib.import_module(f"transformers.models.{model}.image_processing_pil_{model}")
    return getattr(module, f"{name}Pil")


BitImageProcessor = pil_processor("bit", "BitImageProcessor")
CLIPImageProcessor = pil_processor("clip", "CLIPImageProcessor")
Qwen2VLImageProcessor = pil_processor("qwen2_vl", "Qwen2VLImageProcessor")
SiglipImageProcessor = pil_processor("siglip", "SiglipImageProcessor")
ViTImageProcessor = pil_processor("vit", "ViTImageProcessor")
