"""benchmarks/photographs.py on drawn pictures: tables, and going on where it stood."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import photographs
import plain_encoder
import pytest
from made_features import make_features
from photos import figures
from photos.kept import Kept
from photos.lora import random_alike
from photos.room import drawn_mu, room, room_table
from PIL import Image

from murank import FeatureSet, MuDistances
from murank.pairs.labelled import Pair
from murank.rerank.verdicts import Verdicts
from murank_kernels import simple

ROWS = 4 * 4  # levels and methods of the table


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Measure the table of ten people in two cameras; return what is printed."""
    random = np.random.default_rng(0)
    height, width = plain_encoder.SIZE
    for pid in range(10):
        person = random.integers(0, 256, (height, width, 3))
        for camera in (1, 2):
            for shot in range(3):
                pixels = np.clip(person + random.normal(0, 20, person.shape), 0, 255)
                file = tmp_path / "pku" / f"{pid:03d}" / f"{camera:02d}_{shot}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(file)
    encoder = plain_encoder.save(plain_encoder.model(), tmp_path)

    def _run() -> str:
        words = ["--encoder", encoder, "--test", f"pku-reid:{tmp_path / 'pku'}"]
        photographs.main([*map(str, words), "--stages", "table", "-o", str(tmp_path / "out")])
        return capsys.readouterr().out.partition("* pku-reid:")[2]

    return _run


def test_a_run_that_was_stopped_goes_on(
    run: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    evaluate = figures.evaluate

    def counted(features: FeatureSet, method: str, **more: Any) -> figures.Evaluated:
        if len(calls) == 5:
            calls.append("stopped")
            raise KeyboardInterrupt
        calls.append(method)
        return evaluate(features, method, **more)

    monkeypatch.setattr(photographs, "evaluate", counted)
    with pytest.raises(KeyboardInterrupt):
        run()
    whole = run()
    assert " 20 queries, 40 gallery images, 2 cameras" in whole
    assert len(calls) == ROWS + 1, "each row once, and the one that was stopped"
    assert run() == whole
    assert len(calls) == ROWS + 1
    file = sorted((tmp_path / "pku").rglob("*.png"))[-1]
    Image.new("RGB", plain_encoder.SIZE[::-1]).save(file)
    assert run() != ""
    assert len(calls) == 2 * ROWS + 1, "another picture: all anew"


def test_figures_of_something_else_or_damaged_are_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    assert Kept(file, {"a": 1}).row("x", lambda: 3) == 3
    assert Kept(file, {"a": 1}).row("x", lambda: 4) == 3
    assert Kept(file, {"a": 2}).row("x", lambda: 4) == 4
    for text in ("", "[]", "{", '{"of": {"a": 2}, "rows": 1}'):
        file.write_text(text)
        assert Kept(file, {"a": 2}).row("x", lambda: 5) == 5
        assert Kept(file, {"a": 2}).row("x", lambda: 6) == 5


class Unkept(Kept):
    def __init__(self) -> None:
        """Keep nothing."""

    def row(self, name: str, measure: Callable[[], Any]) -> Any:
        del name
        return measure()


def test_alternatives_and_one_query_run_through() -> None:
    """Figures that are told in two tables are the same."""
    from photos.alternatives import alternatives, crops_needed, small_galleries
    from photos.one_query import one_query

    made = make_features(num_ids=16, num_cameras=2, images_per_camera=4, dim=80, num_distractors=0)
    ways = alternatives(made, Unkept())
    joint = figures.evaluate(figures.aligned(made, "pairs"), "encoder").score
    assert ways["as it is done, 80 directions"]["encoder"] == pytest.approx(joint)
    assert set(crops_needed(made, Unkept())) == {"mean, nothing drawn", "mean", "pairs"}
    assert small_galleries(made, Unkept()) == {}, "no camera has a hundred images"
    alone = one_query(made, Unkept())
    for level in figures.LEVELS:
        joint = figures.evaluate(figures.aligned(made, level), "encoder").score
        assert alone["encoder"][level] == pytest.approx(joint)


def test_small_galleries_have_as_many_of_each_camera_and_only_queries_with_a_match() -> None:
    from photos.alternatives import _small

    made = make_features(num_ids=30, num_cameras=3, images_per_camera=2, dim=8, num_distractors=0)
    small = _small(made, 7, 0)
    assert small.labels is not None
    assert Verdicts(small.labels, {}).num_matches.all()
    assert small.labels.g_camids is not None
    assert np.unique(small.labels.g_camids, return_counts=True)[1].tolist() == [7] * 3
    everything = _small(made, 1000, 0)
    assert everything.paths.tolist() == made.paths.tolist()


def test_random_pairs_have_the_answers_and_queries_of_the_mined() -> None:
    people = {f"{pid}-{shot}": pid for pid in range(6) for shot in range(3)}
    hard = [
        Pair(one, other, people[one] == people[other])
        for one in people for other in people if one != other
    ]  # fmt: skip
    drawn = random_alike(hard, people, seed=0)
    assert [(pair.query, pair.match) for pair in drawn] == [(p.query, p.match) for p in hard]
    assert all(people[pair.query] == people[pair.candidate] for pair in drawn if pair.match)
    assert all(people[pair.query] != people[pair.candidate] for pair in drawn if not pair.match)
    assert all(pair.query != pair.candidate for pair in drawn)
    assert drawn != hard
    assert drawn == random_alike(hard, people, seed=0) != random_alike(hard, people, seed=1)


@pytest.mark.parametrize("auc", [0.5, 0.6, 0.8, 0.95, 1.0])
def test_drawn_mu_has_its_auc_and_is_as_sure_as_it_is_right(auc: float) -> None:
    count = 20_000
    same = np.arange(count) % 2 == 0
    mu = drawn_mu(same.reshape(-1, 10), auc, np.random.default_rng(1)).ravel()
    ours, others = mu[same][:2000, None], mu[~same][None, :2000]
    found = ((ours < others) + 0.5 * (ours == others)).mean()
    deviation = (auc * (1 - auc) / 2000) ** 0.5  # at most, of this many on either side
    assert found == pytest.approx(auc, abs=5 * deviation)
    # A mean of `count` labels given their probabilities: half a standard deviation each, at most.
    for low, high in ((0, 0.5), (0.5, 1.01)):
        some = (mu >= low) & (mu < high)
        if some.any():
            bound = 5 * 0.5 / some.sum() ** 0.5
            assert (~same)[some].mean() == pytest.approx(mu[some].mean(), abs=bound)


def test_the_room_ends_with_the_truth() -> None:
    made = make_features(num_ids=16, num_cameras=2, images_per_camera=4, dim=80, num_distractors=0)
    found = room(made, Unkept())
    ready = figures.aligned(made, "pairs")
    candidates = simple(ready.features, ready.num_query, top_k=10)[1].astype(np.int64)
    assert ready.labels is not None
    other = ready.labels.g_pids[candidates] != ready.labels.q_pids[:, None]
    truth = MuDistances(other.astype(np.float32), candidates)
    for method in ("k-reciprocal", "CA-Jaccard"):
        before, after = (figures.evaluate(ready, method, mu).score for mu in (None, truth))
        assert found[method]["1"] == pytest.approx(np.subtract(after, before).tolist())
        assert found[method]["without mu"] == before
    last, least, most = room_table({"made": found}).splitlines()[-3:]
    cells = [np.subtract(found[one]["0.8"], 0) for one in ("k-reciprocal", "CA-Jaccard")]
    low, high = np.min(cells, axis=0), np.max(cells, axis=0)
    assert f"{low[0]:+.1f}/{low[1]:+.1f}" in least
    assert f"{high[0]:+.1f}/{high[1]:+.1f}" in most
    assert "CA-Jaccard" in last
