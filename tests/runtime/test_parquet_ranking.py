"""Rankings in Parquet: what is written is read back, by us and by pandas' reader."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from murank import InputError, OutputError, Ranking, load_ranking, write_ranking
from murank.cli import main
from murank.datasets import list_images
from murank.rerank import parquet_ranking
from murank.rerank.mu import MuDistances

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")

Q, G, K = 7, 9, 4


def make_ranking() -> Ranking:
    random = np.random.default_rng(0)
    return Ranking(
        np.array([random.permutation(G)[:K] for _ in range(Q)]),
        np.sort(random.random((Q, K), np.float32), axis=1),
        np.array([f"q/ä{i}" for i in range(Q)]), np.array([f"g/{i}" for i in range(G)]),
        random.integers(0, 3, Q), random.integers(-1, 3, G), np.arange(Q), np.arange(G),
        np.arange(Q) - 1, np.arange(G) + 5,
    )  # fmt: skip


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_equal(found: Ranking, wanted: Ranking) -> None:
    for name, value in vars(wanted).items():
        if value is None:
            assert getattr(found, name) is None
        else:
            np.testing.assert_array_equal(getattr(found, name), value)
            assert getattr(found, name).dtype.kind == value.dtype.kind
    assert found.indices.dtype == np.dtype(np.int64)
    assert found.distances.dtype == np.dtype(np.float32)


@pytest.mark.parametrize("labels", [(), ("q_camids", "g_clothes"), ("q_pids", "q_camids")])
@pytest.mark.parametrize(("rows", "group", "parts"), [(10**6, 10**5, 1), (11, 5, 4), (1, 1, 7)])
def test_round_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: tuple[str, ...], rows: int, group: int,
    parts: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(parquet_ranking, "_ROWS", rows)
    monkeypatch.setattr(parquet_ranking, "_GROUP", group)
    changes: dict[str, Any] = dict.fromkeys(labels)
    wanted = replace(make_ranking(), **changes)
    write_ranking(tmp_path, wanted, {"run": 1}, format="parquet")
    numbered = [f"ranking-{part:05d}.parquet" for part in range(parts)]
    assert names(tmp_path) == [*numbered, "ranking-gallery.parquet", "summary.json"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    for place in (tmp_path, tmp_path / numbered[0]):
        assert_equal(load_ranking(place), wanted)


def test_a_row_a_candidate_match(tmp_path: Path) -> None:
    ranking = make_ranking()
    asked = np.array([[one[0], one[2]] for one in ranking.indices])
    mu = np.linspace(0, 1, 2 * Q).reshape(Q, 2).astype(np.float32)
    write_ranking(tmp_path, ranking, {}, format="parquet", mu=MuDistances(mu, asked))
    file = tmp_path / "ranking-00000.parquet"
    table = pq.read_table(file)
    kinds = {
        name: str(kind) for name, kind in zip(table.schema.names, table.schema.types, strict=True)
    }
    assert kinds == {
        "query_index": "int64", "query_path": "string", "rank": "int32",
        "candidate_index": "int64", "candidate_path": "string", "distance": "float", "mu": "float",
        "query_pid": "int64", "query_camid": "int64", "candidate_pid": "int64",
        "candidate_camid": "int64", "query_clothes": "int64", "candidate_clothes": "int64",
    }  # fmt: skip
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"
    assert ranking.g_pids is not None
    rows = table.to_pylist()
    assert len(rows) == Q * K
    for number, row in enumerate(rows):
        query, place = divmod(number, K)
        image = int(ranking.indices[query, place])
        known = {0: mu[query, 0], 2: mu[query, 1]}
        assert (row["query_path"], row["rank"]) == (f"q/ä{query}", place + 1)
        assert (row["candidate_index"], row["candidate_path"]) == (image, f"g/{image}")
        assert row["candidate_pid"] == ranking.g_pids[image]
        assert row["mu"] == known.get(place)
        assert row["distance"] == ranking.distances[query, place]
    assert len(list_images(tmp_path / "ranking-gallery.parquet").paths) == G


def test_overwrite_replaces_our_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_ranking, "_ROWS", 1)
    write_ranking(tmp_path, make_ranking(), {}, format="parquet")
    mine = ("ranking-0.parquet", "ranking-000000.parquet", "my-ranking-00000.parquet")
    for name in mine:
        (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="overwrite=True"):
        write_ranking(tmp_path, make_ranking(), {}, format="parquet")
    monkeypatch.setattr(parquet_ranking, "_ROWS", 15)
    write_ranking(tmp_path, make_ranking(), {}, format="parquet", overwrite=True)
    numbered = [f"ranking-{part:05d}.parquet" for part in range(3)]
    others = ("ranking-gallery.parquet", "summary.json")
    assert names(tmp_path) == sorted([*numbered, *others, *mine])
    write_ranking(tmp_path, make_ranking(), {}, overwrite=True)
    assert names(tmp_path) == sorted(["ranking.npz", "summary.json", *mine])
    assert all((tmp_path / name).read_text() == "mine" for name in mine)


def test_rankings_that_are_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_ranking, "_ROWS", 15)
    write_ranking(tmp_path, make_ranking(), {}, format="parquet")
    kept = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    first, second = (tmp_path / f"ranking-0000{part}.parquet" for part in range(2))
    table = pq.read_table(first)

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            load_ranking(tmp_path)
        for name, data in kept.items():
            (tmp_path / name).write_bytes(data)

    for name in ("ranking-00001.parquet", "ranking-gallery.parquet"):
        (tmp_path / name).unlink()
        refused(name)
    second.write_bytes(first.read_bytes())
    refused(second.name)
    pq.write_table(table.replace_schema_metadata(None), first)
    refused(first.name)
    pq.write_table(table.slice(0, 5), first)
    refused(first.name)
    pq.write_table(table.take([1, 0, *range(2, len(table))]), first)
    refused(first.name)
    pq.write_table(table.drop_columns(["distance"]), first)
    refused("distance")
    pq.write_table(pa.table({"path": ["a", "b"]}), tmp_path / "ranking-gallery.parquet")
    refused("indices")
    assert_equal(load_ranking(tmp_path), make_ranking())
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "list.parquet")
    with pytest.raises(InputError, match=r"list\.parquet"):
        load_ranking(tmp_path / "list.parquet")


def test_the_verbs(feature_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def verb(*words: object) -> int:
        return main(list(map(str, words)))

    for kind in ("npz", "parquet"):
        options = ("--method", "ecn", "--quiet", "--format", kind)
        assert verb("rerank", feature_file, *options, "-o", tmp_path / kind) == 0
    assert_equal(load_ranking(tmp_path / "parquet"), load_ranking(tmp_path / "npz"))
    told = []
    for kind in ("npz", "parquet"):
        capsys.readouterr()
        assert verb("evaluate", tmp_path / kind, "--json") == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["metrics"] == told[1]["metrics"]
    assert verb("rerank", feature_file, *options, "-o", tmp_path / "parquet") == 2
    assert verb("rerank", feature_file, *options, "-o", tmp_path / "parquet", "--overwrite") == 0


def test_names_that_parquet_cannot_hold(
    feature_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = dict(np.load(feature_file))
    paths = arrays["paths"].copy()
    paths[-1] = "\udcff.jpg"
    np.savez(tmp_path / "f.npz", **{**arrays, "paths": paths})
    words = ["rerank", tmp_path / "f.npz", "--method", "ecn", "-o", tmp_path / "out", "--format"]
    assert main(list(map(str, [*words, "parquet"]))) == 2
    assert "udcff.jpg" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
