"""What is made by a graph belongs to that graph: plans, and vision tokens."""

import hashlib
from pathlib import Path

from murank.engine._json import write_json
from murank.engine.manifest import Manifest
from murank.engine.onnx_references import external_data_files


def graph_sha256(engine: Path, manifest: Manifest, name: str) -> str:
    """Return one hash of a graph and its external data, from those in the manifest."""
    folder = Path(name).parent
    names = [name, *(str(folder / one) for one in sorted(external_data_files(engine / name)))]
    lines = [f"{one} {manifest.files[one].sha256}\n" for one in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def vision_sha256(engine: Path, manifest: Manifest) -> str | None:
    """Return the hash of all that vision tokens depend on; None if the engine makes none.

    That is the vision graph and what images go through before it, at the engine's precision. What
    comes after it, such as a calibration, changes nothing.
    """
    part = manifest.scorer
    if part is None:
        return None
    what = [
        graph_sha256(engine, manifest, part.vision), part.preprocessing.to_json(),
        list(part.mean), list(part.std), manifest.precision,
    ]  # fmt: skip
    return hashlib.sha256(write_json(what)).hexdigest()
