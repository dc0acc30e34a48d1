"""Hashes of what went into an engine."""

import hashlib
from pathlib import Path


def file_sha256(file: Path) -> str:
    """Return the sha256 of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def checkpoint_sha256(folder: Path) -> str:
    """Return one hash of a Hugging Face folder's config and weights, by name and content."""
    digest = hashlib.sha256()
    for file in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()
