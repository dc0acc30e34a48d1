"""No verb is forgotten: each writes nothing, or is stopped wherever it writes."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import faults.test_build_machine_verbs
import faults.test_engine_verbs
import faults.test_runtime_verbs  # noqa: F401 - what they stop is noted as they are imported
import pytest
import runtime.test_gallery_kill
import runtime.test_gallery_relate
import runtime.test_progress
import runtime.test_service_files  # noqa: F401
from faults.covered import COVERED, options_with_values
from faults.shim import Shim, in_child

from murank.cli import VERBS, main

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
READ: dict[str, str] = {
    "adapt mine": "--features --engine --images --image-root --alignment",
    "adapt train": "--mllm --pairs --image-root --prompt --init-adapter --adapter-targets",
    "export": "--mllm --adapter --prompt --encoder --encoder-output",
    "score": "--plans engine --features --query --gallery --root --image-root --sha256 --alignment",
    "rerank": "source --image-root --mu --mu-swapped --gallery-mu --gallery-mu-swapped --alignment",
    "search": "--plans engine --gallery --query --image-root --sha256 --alignment",
    "align": "--plans source --engine --image-root --sha256",
    "evaluate": "source --mu --mu-swapped --gallery-mu --gallery-mu-swapped --alignment",
    "calibrate": "--plans --pairs --image-root --sha256 --alignment",
    "inspect": "--plans engine --sha256",
    "bench": "--plans engine --images --sha256",
    "plan": "engine --power-mode",
    "cache": "--engine",
    "doctor": "--plans --engine",
    "world": "--domain",
    "gallery add": "engine images --items --track --subject --sha256 --plans",
    "gallery search": "engine file --query --id --exclude-track --sha256 --plans",
    "gallery reembed": "engine --sha256 --plans",
    "gallery relate": "engine --sha256 --plans",
    "gallery erase": "--id --track --subject --engine",
    "gallery purge": "--engine",
    "gallery import": "rows --engine",
    "gallery backup": "file",
    "gallery export": "file",
    "gallery verify": "file",
    "gallery stats": "file",
    "serve": "engine --sha256 --plans --token-file --host --server-name --ssl-certfile "
    "--ssl-keyfile",
}
WRITE_NOTHING = ("inspect", "plan")


def test_every_option_that_writes_is_stopped_at_every_step() -> None:
    """An option that is new: put what it reads above, or write a test of what it writes."""
    read = {f"{verb} {name}" for verb, names in READ.items() for name in names.split()}
    options = set(options_with_values())
    assert options - read - COVERED == set()
    assert read & COVERED == set()
    assert read - options == set()
    assert COVERED - options == {"doctor --compile-kernels"}  # says nowhere where
    assert {one.split()[0] for one in COVERED} == set(VERBS) - set(WRITE_NOTHING)


@pytest.mark.parametrize("name", WRITE_NOTHING)
def test_a_verb_that_writes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ENGINE, tmp_path / "engine")
    runs: dict[str, Sequence[object]] = {
        "inspect": (tmp_path / "engine", "--verify", "--quiet"),
        "plan": (tmp_path / "engine", "--board", "orin-nano-8gb"),
    }
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ended = in_child(lambda: main([name, *map(str, runs[name])]), Shim(tmp_path))
    assert (ended.code, ended.steps) == (0, []), ended
