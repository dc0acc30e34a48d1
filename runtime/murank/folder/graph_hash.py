"""What is made by a graph belongs to that graph: plans, vision tokens and features."""

import hashlib

from murank.files.json_object import write_json
from murank.folder.contents import EngineFiles


def graph_sha256(files: EngineFiles, name: str) -> str:
    """Return one hash of a graph and its external data, from those in the manifest."""
    entries = files.manifest.files
    lines = [f"{one} {entries[one].sha256}\n" for one in files.graph_files(name)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def vision_sha256(files: EngineFiles) -> str | None:
    """Return the hash of all that vision tokens depend on; None if the engine makes none.

    That is the vision graph and what images go through before it, at the engine's precision. What
    comes after it, such as a calibration, changes nothing.
    """
    manifest = files.manifest
    part = manifest.scorer
    if part is None:
        return None
    what = [
        graph_sha256(files, part.vision), part.preprocessing.to_json(),
        list(part.mean), list(part.std), manifest.precision,
    ]  # fmt: skip
    return hashlib.sha256(write_json(what)).hexdigest()


def encoder_sha256(files: EngineFiles) -> str | None:
    """Return the hash of all that features depend on; None if the engine makes none.

    That is the encoder's graph with its external data, and what the manifest says of that part.
    """
    manifest = files.manifest
    part = manifest.encoder
    if part is None:
        return None
    its = files.graph_files(part.graph)
    entries = {name: one.to_json() for name, one in manifest.files.items() if name in its}
    return hashlib.sha256(write_json([part.to_json(), entries])).hexdigest()
