"""Shrunken checkpoints of the real config classes, and the engines exported from them."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import other_seeds
import pytest
from drawn_once import draw_once
from numpy.typing import NDArray
from quick_exporter import quicken
from random_checkpoint import SIZES, make_checkpoint
from safetensors.torch import load_file, save_file
from shared_fixtures import refuse as refuse
from traced_once import TracedOnce, code_that_traces

from murank import Engine
from murank.folder.precision import Precision
from murank.prompt import Layout
from murank_export import ExportSettings, export_engine
from murank_export.engine import export_scorer as scorer
from murank_export.mllm.checkpoint import load_checkpoint

other_seeds.move_seeds_of_torch()

# Two of each: the last decoder layer is another than the first, as is the last block of a tower
# with windows. Qwen2's has none: all of its blocks are alike. Qwen3 adds to the inputs of layers 1
# and 2, so that the last has to be a third.
LEAST = {**SIZES["tiny"], "layers": 2, "depth": 2}
SIZES.update(qwen2_vl={**LEAST, "depth": 1}, qwen2_5_vl=LEAST, qwen3_vl={**LEAST, "layers": 3})


@pytest.fixture(scope="session", autouse=True)
def traced_once(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Trace equal towers and decoders once: nothing costs tests of exports more.

    Graphs stay in pytest's cache, if it has one, until the code that makes them changes.
    """
    cache = getattr(pytestconfig, "cache", None)
    store = tmp_path_factory.mktemp("traced") if cache is None else cache.mkdir("traced")
    kept = store / code_that_traces()
    for old in set(store.iterdir()) - {kept}:
        shutil.rmtree(old, ignore_errors=True)
    kept.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        draw_once(patch)
        for name in ("export_vision", "export_decoder"):
            patch.setattr(scorer, name, TracedOnce(getattr(scorer, name), kept))
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of a shrunken checkpoint, by family and size: the same on every machine."""
    made: dict[tuple[str, str | None], Path] = {}

    def of(family: str, size: str | None = None) -> Path:
        if (family, size) not in made:
            folder = tmp_path_factory.mktemp("checkpoints") / family
            make_checkpoint(folder, family, size or family)
            # Its normalisation is another family's; each has its own without the file.
            (folder / "preprocessor_config.json").unlink(missing_ok=True)
            made[family, size] = folder
        return made[family, size]

    return of


@pytest.fixture(scope="session")
def model(checkpoint: Callable[[str], Path]) -> Any:
    """A shrunken Qwen2-VL, loaded (shared: change a copy)."""
    return load_checkpoint(checkpoint("qwen2_vl")).model


@pytest.fixture(scope="session")
def tied_checkpoint(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint whose answer head is its embedding table, as Qwen2-VL-2B's is."""
    folder = tmp_path_factory.mktemp("tied") / "qwen2_vl"
    shutil.copytree(checkpoint("qwen2_vl"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("lm_head.weight", None)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


EngineFolder = Callable[..., Path]


@pytest.fixture(scope="session")
def engine_folder(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> EngineFolder:
    """Exported engine by family, layout and precision (shared: never change one)."""
    made: dict[tuple[str, Layout, Precision], Path] = {}

    def of(
        family: str = "qwen2_vl", layout: Layout = "prefix_first", precision: Precision = "fp32"
    ) -> Path:
        key = (family, layout, precision)
        if key not in made:
            folder = tmp_path_factory.mktemp("engines") / "-".join(key)
            settings = ExportSettings(
                folder, checkpoint(family), layout=layout, precision=precision, parity_pairs=3
            )
            export_engine(settings)
            made[key] = folder
        return made[key]

    return of


@pytest.fixture
def engine_copy(engine_folder: EngineFolder, tmp_path: Path) -> Path:
    """An engine folder to damage."""
    return Path(shutil.copytree(engine_folder(), tmp_path / "engine"))


@pytest.fixture
def engine(engine_folder: EngineFolder) -> Engine:
    """A freshly loaded fp32 engine of the prefix_first layout."""
    return Engine.from_pretrained(engine_folder(), providers="cpu")


@pytest.fixture(scope="session")
def crops() -> list[NDArray[np.uint8]]:
    """Forty made crops of people's size, [H,W,3]: smooth colours, each different."""
    random = np.random.default_rng(5)
    found = []
    for _ in range(40):
        coarse = random.integers(0, 256, (6, 3, 3))
        crop = np.kron(coarse, np.ones((20, 20, 1))) + random.integers(-20, 20, (120, 60, 3))
        found.append(np.clip(crop, 0, 255).astype(np.uint8))
    return found
