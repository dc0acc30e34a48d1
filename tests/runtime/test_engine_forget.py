"""What an engine keeps of images: never of another one, found after a calibration, erasable."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from murank import Engine, InputError, OutputError
from murank.calibration import calibrate, store_calibration
from murank.engine.memory_cache import content_key
from murank.folder.manifest import read_manifest
from murank.images import prepare

pytest.importorskip("onnxruntime")
ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
QUERY, FIRST, SECOND = (
    np.random.default_rng(seed).integers(0, 256, (64, 32, 3), np.uint8) for seed in range(3)
)


def load(folder: Path = ENGINE, **options: Any) -> Engine:
    return Engine.from_pretrained(folder, providers="cpu", threads=1, parts=["scorer"], **options)


@pytest.fixture(scope="module")
def wanted() -> NDArray[np.float32]:
    """Mu of an engine that keeps nothing on disk."""
    return load().mu(QUERY, [FIRST, SECOND])


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if not path.is_dir())


def key_of(image: NDArray[np.uint8]) -> str:
    part = read_manifest(ENGINE).scorer
    assert part is not None
    return content_key(prepare(image, part.preprocessing).pixels)


def test_files_that_were_mixed_up_change_no_answer(
    tmp_path: Path, wanted: NDArray[np.float32]
) -> None:
    load(cache_dir=tmp_path).mu(QUERY, [FIRST, SECOND])
    one, other = (next(tmp_path.rglob(key_of(image))) for image in (FIRST, SECOND))
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    again = load(cache_dir=tmp_path)
    np.testing.assert_allclose(again.mu(QUERY, [FIRST, SECOND]), wanted, atol=1e-5)
    third = load(cache_dir=tmp_path)  # they were replaced
    scorer: Any = third.scorer
    scorer.vision.session.run = None
    np.testing.assert_allclose(third.mu(QUERY, [FIRST, SECOND]), wanted, atol=1e-5)


def test_a_calibration_changes_neither_what_is_found_nor_what_is_erased(tmp_path: Path) -> None:
    folder, root = tmp_path / "engine", tmp_path / "cache"
    shutil.copytree(ENGINE, folder)
    engine = load(folder, cache_dir=root)
    engine.mu(QUERY, [FIRST, SECOND])
    before = files(root)
    random = np.random.default_rng(0)
    odds = np.concatenate([random.normal(-2, 3, 300), random.normal(3, 3, 300)])
    measured = calibrate(odds, np.arange(600) < 300)
    store_calibration(folder, engine.manifest, engine.sha256, measured, pairs_sha256="5" * 64)
    calibrated = load(folder, cache_dir=root)
    assert calibrated.sha256 != engine.sha256
    scorer: Any = calibrated.scorer
    run = scorer.vision.session.run
    scorer.vision.session.run = None  # all of them are found
    calibrated.mu(QUERY, [FIRST, SECOND])
    scorer.vision.session.run = run
    assert files(root) == before
    calibrated.clear_cache()
    assert files(root) == []


def test_one_image_is_forgotten_everywhere(tmp_path: Path) -> None:
    engine = load(cache_dir=tmp_path)
    scorer: Any = engine.scorer
    engine.mu(QUERY, [FIRST, SECOND])
    assert not engine.forget(QUERY[::-1])
    for image in (QUERY, FIRST):
        key = key_of(image)
        assert scorer.remembered(key) is not None
        assert engine.forget(image)
        assert scorer.remembered(key) is None
        assert scorer.known_prefix(key) is None
        assert not list(tmp_path.rglob(f"*{key}*"))
        assert not engine.forget(image)
    assert scorer.remembered(key_of(SECOND)) is not None
    assert [path.name for path in files(tmp_path)] == [key_of(SECOND)]


def test_a_prefix_alone_is_something(tmp_path: Path) -> None:
    engine = load(vision_cache_mb=0)
    engine.mu(QUERY, [FIRST])
    assert (engine.forget(FIRST), engine.forget(QUERY), engine.forget(QUERY)) == (
        False, True, False
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_swapped_order_keeps_candidates_as_queries() -> None:
    engine = load()
    engine.mu(QUERY, [FIRST], order="swapped")
    scorer: Any = engine.scorer
    assert scorer.known_prefix(key_of(FIRST)) is not None
    assert engine.forget(FIRST)
    assert scorer.known_prefix(key_of(FIRST)) is None


def test_files_are_erased_without_loading_a_graph(tmp_path: Path) -> None:
    load(cache_dir=tmp_path).mu(QUERY, [FIRST])
    engine = Engine.from_pretrained(ENGINE, parts=[], cache_dir=tmp_path)
    assert engine.forget(FIRST)
    assert [path.name for path in files(tmp_path)] == [key_of(QUERY)]
    engine.clear_cache()
    assert files(tmp_path) == []


@pytest.mark.parametrize("limit", [{"cache_max_mb": 5}, {"cache_max_days": 1.5}])
def test_limits_of_nothing(limit: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cache_dir"):
        load(**limit)


def test_limits_reach_the_folder(tmp_path: Path) -> None:
    load(cache_dir=tmp_path).mu(QUERY, [FIRST])
    load(cache_dir=tmp_path, cache_max_days=1e-9)
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_used_is_told_before_a_graph_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murank.engine.engine.load_on_one", None)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="link is a symlink"):
        load(cache_dir=tmp_path / "link")


def test_a_file_that_was_seen_is_decoded_once_until_it_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other, query = map(as_png, (FIRST, SECOND, QUERY))
    again = as_png(FIRST, compress_level=0)  # another file of the same picture
    decoded: list[object] = []

    def counted(image: Any, *given: Any, **named: Any) -> Any:
        decoded.append(image)
        return prepare(image, *given, **named)

    monkeypatch.setattr("murank.engine.deadline.prepare", counted)
    engine = load()

    def asked(*candidates: bytes) -> list[float | None]:
        return [match.mu for match in engine.rank(query, candidates, deadline_ms=1e9)]

    first = asked(one, other)
    assert asked(one, other) == first
    assert decoded == [one, other]
    asked(again, other)
    assert decoded == [one, other, again]
    assert engine.forget(FIRST)  # both files of it
    asked(one, again, other)
    assert decoded == [one, other, again, one, again]
    engine.clear_cache()
    assert asked(one, other) == first
    assert decoded[5:] == [one, other]


def as_png(image: NDArray[np.uint8], **how: Any) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", **how)
    return data.getvalue()
