"""Train the miniature of the method, and put it where the repository ships it.

    python benchmarks/train_miniature.py --work try/miniature          # trains what is missing
    python benchmarks/train_miniature.py --work try/miniature --ship   # replaces what is shipped

A Re-ID encoder of one domain; a small Qwen2-VL pre-trained on 300 other places; LoRA with hard
mining on the encoder's domain; an engine. About two CPU hours, nearly all of them the base's, no
download; killed and started again, it goes on. The unseen domains (`world.UNSEEN`) take no
part; `tests/export/test_miniature.py` checks that.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
from pathlib import Path

from miniature.model import HERE
from miniature.recipe import BASE_SEED, ENCODER_STEPS, LORA, POOL_DOMAINS, STAGES, Recipe

from murank.folder.manifest import engine_sha256
from murank_export.world import TRAINING

SEED = 0  # of the shipped one
PRECISION = "w8"  # of its engine: runs on any CPU, and fp32 would be more than 15 MB in all
PACKAGES = ("torch", "transformers", "peft", "onnx", "onnxruntime", "numpy", "pillow")


def main() -> None:
    """Train, and ship if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("try/miniature"))
    parser.add_argument("--ship", action="store_true", help="replace what the repository holds")
    arguments = parser.parse_args()
    recipe = Recipe(arguments.work / f"seed-{SEED}", SEED)
    adapter = recipe.adapter()
    engine = recipe.engine(adapter=adapter, dtype=PRECISION)
    print(engine)
    if arguments.ship:
        ship(recipe, adapter, engine)


def ship(recipe: Recipe, adapter: Path, engine: Path) -> None:
    """Copy base, adapter and engine beside this script, with a record of how they were made."""
    for name, source in (("base", recipe.base), ("adapter", adapter), ("engine", engine)):
        target = HERE / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    record = {
        "seed": SEED,
        "base_seed": BASE_SEED,
        "domains": {
            "encoder": [TRAINING], "adapter": [TRAINING],
            "base": f"broad-0 to broad-{POOL_DOMAINS - 1}",
        },
        "encoder_steps": ENCODER_STEPS,
        "base_steps": vars(STAGES),
        "adapter": " ".join(LORA),
        "engine_sha256": engine_sha256(engine),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }  # fmt: skip
    (HERE / "miniature.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
