"""The engine as its users call it: order, history, batches and caches never move a score."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from murank import Engine, InputError
from murank.images import ImageSource

Crops = list[NDArray[np.uint8]]
CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 0}


def test_interleaved_permuted_repeated(engine: Engine, crops: Crops) -> None:
    queries, candidates = crops[:3], crops[3:15]
    alone = np.array([[engine.mu(q, [c])[0] for c in candidates] for q in queries])
    assert np.ptp(alone, axis=1).min() > 1e-3  # pairs differ by far more than the tolerance
    random = np.random.default_rng(0)
    for _ in range(6):
        q = int(random.integers(3))
        places = random.integers(0, len(candidates), int(random.integers(1, 20)))
        found = engine.mu(queries[q], [candidates[place] for place in places])
        np.testing.assert_allclose(found, alone[q, places], **CLOSE)
    np.testing.assert_allclose(engine.mu_many(queries, [candidates] * 3), alone, **CLOSE)


def test_filled_evicted_and_switched_off_caches(
    engine_folder: Any, tmp_path: Path, crops: Crops
) -> None:
    folder = engine_folder()
    plain = Engine.from_pretrained(folder, providers="cpu", vision_cache_mb=0)
    wanted = [plain.mu(crops[q], crops[5:12]) for q in (0, 1, 2)]
    part = plain.manifest.scorer
    assert part is not None
    small = Engine.from_pretrained(folder, providers="cpu", cache_dir=tmp_path / "cache")
    # Room for three images: every call evicts what the one before put in.
    small._vision_memory._budget = 3 * part.shapes.vision_values * 4
    for _ in range(2):
        for q in (0, 1, 2, 1, 0):
            np.testing.assert_allclose(small.mu(crops[q], crops[5:12]), wanted[q], **CLOSE)
        assert small._vision_memory.bytes <= small._vision_memory._budget


def test_vision_tokens_are_computed_once(engine: Engine, crops: Crops) -> None:
    scorer = engine.scorer
    assert scorer is not None
    seen: list[int] = []
    run = scorer.vision.session.run

    def counted(inputs: Any, outputs: Any) -> Any:
        seen.append(len(inputs["images"]))
        return run(inputs, outputs)

    scorer.vision.session.run = counted  # type: ignore[method-assign]
    engine.mu(crops[0], [*crops[1:10], crops[1]])
    assert sum(seen) == 10  # the query and nine candidates, the repeated one not again
    engine.mu(crops[1], crops[2:10])
    assert sum(seen) == 10
    engine.clear_cache()
    engine.mu(crops[1], crops[2:10])
    assert sum(seen) == 19


def test_disk_cache_serves_the_next_process_and_is_erased(
    engine_folder: Any, tmp_path: Path, crops: Crops
) -> None:
    first = Engine.from_pretrained(engine_folder(), providers="cpu", cache_dir=tmp_path)
    wanted = first.mu(crops[0], crops[1:4])
    second = Engine.from_pretrained(engine_folder(), providers="cpu", cache_dir=tmp_path)
    scorer = second.scorer
    assert scorer is not None

    def refuse(inputs: Any, outputs: Any) -> Any:
        raise AssertionError(f"vision tokens should come from disk, not {len(inputs)}, {outputs}")

    scorer.vision.session.run = refuse  # type: ignore[method-assign]
    np.testing.assert_allclose(second.mu(crops[0], crops[1:4]), wanted, **CLOSE)
    second.clear_cache()
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_never_another_persons_prefix(engine: Engine, crops: Crops) -> None:
    """All prompts have the same token ids; only the pixels tell queries apart."""
    other = crops[0].copy()
    other[60:70, 20:30] ^= 255
    one, two = engine.mu(crops[0], crops[1:4]), engine.mu(other, crops[1:4])
    assert np.abs(one - two).max() > 1e-4
    np.testing.assert_array_equal(engine.mu(crops[0], crops[1:4]), one)


def test_prefill_once_a_query(engine: Engine, crops: Crops) -> None:
    scorer = engine.scorer
    assert scorer is not None
    calls: list[int] = []
    prefill = scorer.decoder.prefill

    def counted(tokens: Any) -> Any:
        calls.append(len(tokens))
        return prefill(tokens)

    scorer.decoder.prefill = counted  # type: ignore[method-assign]
    scorer._max_pairs = 4
    engine.mu(crops[0], crops[1:12])  # three runs of the decoder
    assert calls == [1]
    engine.mu(crops[0], crops[12:14])
    assert calls == [1]


@pytest.mark.parametrize("max_pairs", [1, 2, 5, 32])
def test_any_split_gives_the_same(
    engine_folder: Any, engine: Engine, crops: Crops, max_pairs: int
) -> None:
    split = Engine.from_pretrained(engine_folder(), providers="cpu", max_pairs=max_pairs)
    wanted = engine.mu(crops[0], crops[1:8])
    np.testing.assert_allclose(split.mu(crops[0], crops[1:8]), wanted, **CLOSE)
    queries, rows = crops[:5], [crops[i : i + 2] for i in range(5, 10)]
    np.testing.assert_allclose(split.mu_many(queries, rows), engine.mu_many(queries, rows), **CLOSE)
    both = [e.mu(crops[0], crops[1:8], order="both") for e in (split, engine)]
    np.testing.assert_allclose(both[0], both[1], **CLOSE)


def test_threads_share_an_engine(engine: Engine, crops: Crops) -> None:
    jobs = [(i % 4, 4 + i % 7) for i in range(24)]
    wanted = [engine.mu(crops[q], crops[c : c + 3]) for q, c in jobs]
    engine.clear_cache()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: engine.mu(crops[job[0]], crops[job[1] :][:3]), jobs))
    np.testing.assert_allclose(found, wanted, **CLOSE)


def test_rank_and_predict(engine: Engine, crops: Crops) -> None:
    candidates = [*crops[1:6], crops[3]]
    mu = engine.mu(crops[0], candidates)
    ranked = engine.rank(crops[0], candidates)
    assert [row.corpus_id for row in ranked] == list(np.argsort(mu, kind="stable"))
    assert [row.mu for row in ranked] == pytest.approx(np.sort(mu).tolist(), rel=1e-6)
    np.testing.assert_allclose([1 - row.score for row in ranked], np.sort(mu), atol=1e-6)
    assert engine.rank(crops[0], candidates, top_k=2) == ranked[:2]
    pairs: list[tuple[ImageSource, ImageSource]] = [(crops[0], c) for c in candidates]
    pairs.append((crops[1], crops[2]))
    found = engine.predict(pairs)
    np.testing.assert_allclose(found[:-1], 1 - mu, **CLOSE)
    np.testing.assert_allclose(found[-1:], 1 - engine.mu(crops[1], crops[2:3]), **CLOSE)


def test_paths_pil_images_and_arrays_are_the_same(
    engine: Engine, crops: Crops, tmp_path: Path
) -> None:
    files = []
    for index, crop in enumerate(crops[:3]):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(crop).save(files[-1])
    wanted = engine.mu(crops[0], crops[1:3])
    np.testing.assert_array_equal(engine.mu(str(files[0]), files[1:]), wanted)
    images = [Image.fromarray(crop) for crop in crops[:3]]
    np.testing.assert_array_equal(engine.mu(images[0], images[1:]), wanted)
    pairs: list[tuple[ImageSource, ImageSource]]
    pairs = [(str(files[0]), files[1]), (files[0], files[2])]
    np.testing.assert_allclose(engine.predict(pairs), 1 - wanted, **CLOSE)


def test_nothing_to_score(engine: Engine, crops: Crops) -> None:
    assert engine.mu(crops[0], []).shape == (0,)
    assert engine.rank(crops[0], []) == []
    assert engine.predict([]).shape == (0,)
    assert engine.mu_many([], []).shape[0] == 0
    assert engine.mu(crops[0], [], order="both").shape == (0,)


def test_tau_widens_or_narrows(engine_copy: Path, engine: Engine, crops: Crops) -> None:
    manifest = json.loads((engine_copy / "manifest.json").read_text())
    manifest["scorer"]["tau"] = 0.5
    (engine_copy / "manifest.json").write_text(json.dumps(manifest))
    sharp = Engine.from_pretrained(engine_copy, providers="cpu").mu(crops[0], crops[1:4])
    mu = engine.mu(crops[0], crops[1:4]).astype(np.float64)
    logit = np.log(mu / (1 - mu))
    np.testing.assert_allclose(sharp, 1 / (1 + np.exp(-2 * logit)), atol=1e-5)


def test_clear_errors(engine: Engine, crops: Crops, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"bad\.png"):
        engine.mu(crops[0], [crops[1], bad])
    with pytest.raises(InputError, match="no encoder"):
        engine.embed(crops[:1])
    with pytest.raises(InputError, match="order"):
        engine.mu(crops[0], crops[1:2], order="reversed")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one list a query"):
        engine.mu_many(crops[:2], [crops[2:3]])
    with pytest.raises(InputError, match="top_k"):
        engine.rank(crops[0], crops[1:3], top_k=0)


def test_a_part_that_is_not_there(engine_folder: Any) -> None:
    with pytest.raises(InputError, match="has no encoder"):
        Engine.from_pretrained(engine_folder(), providers="cpu", parts=["encoder"])


def test_an_answer_that_is_no_number(
    engine: Engine, crops: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = engine.scorer
    assert scorer is not None
    overflowed = np.full((1, 2, 2), np.inf, np.float32)
    monkeypatch.setattr(scorer.decoder, "logits", lambda _prefix, _tokens: overflowed)
    with pytest.raises(InputError, match=r"candidates.*no number; .*--dtype fp32"):
        engine.mu(crops[0], crops[1:3])


def test_one_image_where_a_list_is_wanted(engine: Engine, crops: Crops) -> None:
    with pytest.raises(InputError, match="candidates"):
        engine.mu(crops[0], "c.png")
    with pytest.raises(InputError, match="pairs"):
        engine.predict((crops[0], crops[1]))  # type: ignore[arg-type]


def test_a_pinned_engine(engine_folder: Any, engine: Engine) -> None:
    same = Engine.from_pretrained(engine_folder(), providers="cpu", sha256=engine.sha256, parts=[])
    assert same.providers == {}
    with pytest.raises(InputError, match="is another engine"):
        Engine.from_pretrained(engine_folder(), providers="cpu", sha256="0" * 64)


def test_int8_stays_on_the_cpu(engine_folder: Any) -> None:
    folder = engine_folder("qwen2_vl", "prefix_first", "int8")
    with pytest.raises(InputError, match="int8 runs on CPUs only"):
        Engine.from_pretrained(folder, providers="cuda")


def test_auto_is_the_cpu_for_int8(engine_folder: Any) -> None:
    auto = Engine.from_pretrained(engine_folder("qwen2_vl", "prefix_first", "int8"))
    assert auto.providers["decoder"] == ["CPUExecutionProvider"]
