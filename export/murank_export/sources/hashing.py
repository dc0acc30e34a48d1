"""Hashes of what went into an engine."""

import hashlib
from pathlib import Path

_BESIDE = (
    "chat_template.jinja", "chat_template.json", "merges.txt", "preprocessor_config.json",
    "processor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
)  # fmt: skip


def file_sha256(file: Path) -> str:
    """Return the sha256 of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def checkpoint_sha256(folder: Path, config: str = "config.json") -> str:
    """Return one hash of a Hugging Face folder: config, tokenizer, templates, weights."""
    digest = hashlib.sha256()
    names = [folder / name for name in (config, *_BESIDE) if (folder / name).is_file()]
    for file in [*names, *sorted(folder.glob("*.safetensors"))]:
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()
