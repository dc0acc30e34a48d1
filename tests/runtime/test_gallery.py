"""A gallery that lives: what is added is found, filtered, asked about, aligned and kept."""

from __future__ import annotations

import io
import time as clock
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_engines import DIM, feature_engine, large, people, seeing_engine
from PIL import Image
from search_parts import make_images

from murank import InputError, OutputError
from murank.gallery import Gallery
from murank_kernels import CameraAlignment, ca_jaccard, k_reciprocal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gallery.db"


def as_png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("method", ["k-reciprocal", "ca-jaccard", "none"])
def test_search_is_that_of_the_kernels_over_what_passes(path: Path, method: Any) -> None:
    features, cameras = people(12, 4), np.arange(48) % 4
    query = people(12, 1, seed=0)[5]
    with Gallery.open(path, feature_engine(), align_cameras="off") as gallery:
        gallery.add(features=features, camera=cameras, time=np.arange(48.0))
        found = gallery.search(feature=query, cameras=[0, 1, 3], since=8, method=method, top_k=20)
    passes = np.flatnonzero((cameras != 2) & (np.arange(48) >= 8))
    rows = np.vstack([query, features[passes]])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if method == "ca-jaccard":
        wanted: Any = ca_jaccard(rows, 1, np.append(9, cameras[passes]), top_k=20)
    elif method == "k-reciprocal":
        wanted = k_reciprocal(rows, 1, top_k=20)
    else:
        apart = np.linalg.norm(rows[1:] - rows[0], axis=1)
        order = np.argsort(apart, kind="stable")[:20]
        wanted = apart[order][None], order[None]
    assert [m.first for m in found.matches] == passes[wanted[1][0]].tolist()
    np.testing.assert_allclose([m.distance for m in found.matches], wanted[0][0], atol=2e-6)
    assert [m.rank for m in found.matches] == list(range(1, 21))


def test_shots_of_a_track_are_searched_as_the_mean_of_their_unit_rows(path: Path) -> None:
    features = people(3, 4) * np.arange(1, 13)[:, None]  # of any length
    tracks = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    with Gallery.open(path, feature_engine(), align_cameras="off") as gallery:
        gallery.add(features=features[:6], camera=0, time=range_of(6), track=tracks[:6])
        gallery.add(features=features[6:], camera=0, time=range_of(12)[6:], track=tracks[6:])
        query = np.ones(DIM)
        found = gallery.search(feature=query, method="none")
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = unit.reshape(3, 4, DIM).mean(axis=1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    apart = dict(
        zip("abc", np.linalg.norm(means - query / np.linalg.norm(query), axis=1), strict=True)
    )
    assert [m.track for m in found.matches] == sorted(apart, key=lambda one: apart[one])
    for match in found.matches:
        assert match.distance == pytest.approx(apart[str(match.track)], abs=1e-6)
        place = "abc".index(str(match.track))
        assert (match.first, match.last) == (4 * place, 4 * place + 3)


def test_one_track_of_two_cameras_is_two_answers(path: Path) -> None:
    with Gallery.open(path, feature_engine()) as gallery:
        gallery.add(features=people(1, 4), camera=[0, 0, 1, 1], time=1, track=7)
        found = gallery.search(feature=people(1, 1)[0])
        assert sorted((m.track, m.camera) for m in found.matches) == [("7", 0), ("7", 1)]
        assert gallery.erase(track="7").rows == 4


def test_filters(path: Path) -> None:
    with Gallery.open(path, feature_engine()) as gallery:
        gallery.add(
            features=people(6, 1), camera=[0, 1, 2, 0, 1, 2], time=[0, 10, 20, 30, 40, 50],
            track=list("abcdef"), id=list("abcdef"),
            attributes=[{"bag": True, "hat": "red"}, {"bag": True}, {}, {"hat": "red"}, {}, {}],
        )  # fmt: skip
        query = people(6, 1)[0]

        def found(**how: Any) -> str:
            return "".join(
                sorted(str(m.track) for m in gallery.search(feature=query, **how).matches)
            )

        assert found() == "abcdef"
        assert found(cameras=1) == "be"
        assert found(cameras={0, 2}) == "acdf"
        assert found(since=20) == "cdef"
        assert found(until=20) == "abc"
        assert found(since=10, until=30, cameras=range(2)) == "bd"
        assert found(since=datetime.fromtimestamp(30, timezone.utc)) == "def"
        assert found(exclude_tracks=["a", "f", "no such"]) == "bcde"
        assert found(attributes={"bag": True}) == "ab"
        assert found(attributes={"bag": True, "hat": "red"}) == "a"
        assert found(attributes={"bag": False}) == ""
        assert found(cameras=[]) == ""
        assert found(cameras=77) == ""


def test_search_by_a_stored_shot_leaves_its_own_track_out(path: Path) -> None:
    with Gallery.open(path, feature_engine(), align_cameras="off") as gallery:
        gallery.add(features=people(4, 3), camera=0, time=0, track=[f"{i // 3}" for i in range(12)],
                    id=[f"i{i}" for i in range(12)])  # fmt: skip
        by_id = gallery.search(id="i4", method="none")
        assert {m.track for m in by_id.matches} == {"0", "2", "3"}
        rows = people(4, 3)[3:6]
        mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
        by_feature = gallery.search(feature=mean, exclude_tracks="1", method="none")
        for one, other in zip(by_id.matches, by_feature.matches, strict=True):
            assert one.track == other.track
            assert one.distance == pytest.approx(other.distance, abs=1e-6)


def test_the_mllm_is_asked_about_kept_crops(path: Path) -> None:
    engine, crops = seeing_engine(), large(0, 9)
    with Gallery.open(path, engine, align_cameras="off") as gallery:
        results = gallery.add([as_png(one) for one in crops], camera=0, time=range_of(9))
        assert [one.status for one in results] == ["added"] * 9
        found = gallery.search(crops[0], candidates=5)
        assert (found.scored, found.candidates, found.partial) == (5, 5, False)
        asked = [m for m in found.matches if m.mu is not None]
        assert len(asked) == 5
        assert all(m.can_ask and m.shot == m.id for m in found.matches if m.mu is not None)
        for match in asked:
            crop = crops[int(match.first)]  # JPEG moves a mu by little
            assert match.mu == pytest.approx(float(engine.mu(crops[0], [crop])[0]), abs=0.02)
        # Features alone are searched, and never asked about.
        gallery.add(features=engine.embed(large(1, 3)), camera=0, time=0)
        found = gallery.search(crops[0], candidates=12)
        assert (found.scored, found.candidates) == (9, 9)
        assert sum(not m.can_ask for m in found.matches) == 3
        assert gallery.search(feature=np.ones(24, np.float32)).scored == 0


@pytest.mark.parametrize("keep", ["tokens", "none"])
def test_without_pictures_on_the_disk(path: Path, keep: Any) -> None:
    crops = large(0, 9)
    with Gallery.open(path, seeing_engine(), keep=keep) as gallery:
        gallery.add(crops, camera=0, time=0)
        assert gallery.stats().pictures == (9 if keep == "tokens" else 0)
    for engine in (seeing_engine(), seeing_engine()):
        vision: Any = engine.scorer.vision if engine.scorer is not None else None
        vision.shape, vision.dtype = (1, 1, 24), np.dtype(np.float32)
        vision.keep = lambda key, values, vision=vision: vision.known.setdefault(key, values)
        with Gallery.open(path, engine, mode="r") as gallery:
            found = gallery.search(crops[0], candidates=9)
            assert found.scored == (9 if keep == "tokens" else 0)
            for match in found.matches if keep == "tokens" else ():
                assert match.mu is not None


def test_best_shots_of_a_track_are_kept(path: Path) -> None:
    sharp = large(0, 1)[0]
    dull = (sharp // 16 + 120).astype(np.uint8)
    sizes = [
        Image.fromarray(sharp).resize((16 * k, 32 * k), Image.Resampling.NEAREST) for k in (1, 3, 2)
    ]
    with Gallery.open(path, seeing_engine(), best_shots=2) as gallery:
        gallery.add([dull, *sizes, dull], camera=0, time=range_of(5), track="t",
                    id=["d1", "s1", "s3", "s2", "d2"])  # fmt: skip
        rows = gallery.get(["d1", "s1", "s3", "s2", "d2", "none"])
        assert [row is not None and row.has_picture for row in rows] == [
            False,
            False,
            True,
            True,
            False,
            False,
        ]
        (match,) = gallery.search(sharp).matches
        assert (match.id, match.shot) == ("s3", "s3")


def test_an_item_s_fault_never_loses_the_others(path: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    crops = [*large(0, 2), tmp_path / "broken.jpg", make_images(1)[0], tmp_path / "none.jpg"]
    with Gallery.open(path, seeing_engine()) as gallery:
        results = gallery.add(crops, camera=1, time=2.0, id=list("abcde"))
        assert [one.status for one in results] == ["added", "added", *["refused"] * 3]
        assert "broken.jpg" in str(results[2].reason)
        assert "min_side" in str(results[3].reason)
        assert "none.jpg" in str(results[4].reason)
        again = gallery.add(crops[:2], camera=1, time=2.0, id=["a", "new"])
        assert [one.status for one in again] == ["known", "added"]
        features = people(3, 1, dim=24)
        features[1], features[2, 0] = 0, np.nan
        results = gallery.add(features=features, camera=1, time=0)
        assert [one.status for one in results] == ["added", "refused", "refused"]
        assert gallery.stats().rows == 4


def test_align_is_that_of_the_kernels_and_new_rows_use_it(path: Path) -> None:
    features, cameras = people(120, 2, seed=3), np.arange(240) % 3
    features += 2 * np.eye(3, DIM, dtype=np.float32)[cameras]
    with Gallery.open(path, feature_engine(), align_dims=8) as gallery:
        gallery.add(features=features[:200], camera=cameras[:200], time=range_of(200))
        assert gallery.stats().alignment_due
        assert gallery.align() == "pairs"
        assert not gallery.stats().alignment_due
        gallery.add(features=features[200:], camera=cameras[200:], time=range_of(240)[200:])
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        alignment = CameraAlignment.fit(unit[:200], cameras[:200], dims=8)
        query = people(1, 1, seed=9)[0]
        wanted = alignment.apply(np.vstack([query, features]), np.append(2, cameras))
        for reopened in (False, True):
            found = gallery.search(feature=query, camera=2, method="none", top_k=240)
            apart = np.linalg.norm(wanted[1:] - wanted[0], axis=1)
            for match in found.matches:
                assert match.distance == pytest.approx(apart[int(match.first)], abs=1e-5)
            if not reopened:
                gallery.close()
                gallery = Gallery.open(path, feature_engine(), align_dims=8)
        gallery.close()


def test_an_erasure_leaves_the_means_at_once_and_the_directions_in_time(path: Path) -> None:
    features, cameras = people(120, 2, seed=3), np.arange(240) % 3
    with Gallery.open(path, feature_engine(), align_dims=8, align_within=0.01) as gallery:
        gallery.add(
            features=features, camera=cameras, time=range_of(240), id=[f"{i}" for i in range(240)]
        )
        gallery.align()
        receipt = gallery.erase(ids=[f"{i}" for i in range(0, 240, 4)])
        assert receipt.complete
        assert not receipt.alignment_rebuilt
        kept = np.arange(240) % 4 != 0
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        with gallery._state.searched() as searched:
            means = searched.version.fitted.cameras.to_arrays()
        for camera, total in zip(means["camids"], means["sums"], strict=True):
            np.testing.assert_allclose(
                total, unit[kept & (cameras == camera)].sum(axis=0), atol=1e-4
            )
        clock.sleep(0.02)
        assert gallery.stats().alignment_due
        gallery.maintain()
        assert gallery.purge().alignment_rebuilt


def test_a_reader_sees_what_the_writer_does(path: Path) -> None:
    features = people(8, 2)
    with Gallery.open(path, feature_engine()) as gallery:
        gallery.add(features=features[:8], camera=0, time=0, track=[f"{i // 2}" for i in range(8)])
        with Gallery.open(path, feature_engine(), mode="r") as reader:
            assert reader.stats().tracks == 4
            gallery.add(
                features=features[8:], camera=1, time=1, track=[f"{i // 2}" for i in range(8)]
            )
            assert reader.stats().tracks == 8
            gallery.erase(track="0")
            assert reader.stats().tracks == 6
            gallery.align()
            found, own = (one.search(feature=features[3], top_k=9) for one in (reader, gallery))
            assert [m.id for m in found.matches] == [m.id for m in own.matches]
            assert found.generation == own.generation


def test_retention_and_a_full_gallery(path: Path) -> None:
    now = clock.time()
    with Gallery.open(path, feature_engine(), retention=3600, max_rows=6) as gallery:
        gallery.add(features=people(4, 1), camera=0, time=[now - 7200, now - 4000, now - 10, now])
        assert gallery.purge().rows == 2
        assert gallery.purge().rows == 0
        results = gallery.add(features=people(6, 1), camera=0, time=now)
        assert [one.status for one in results] == ["added"] * 4 + ["refused"] * 2
    with Gallery.open(path, feature_engine(), max_rows=6, when_full="drop-oldest") as gallery:
        results = gallery.add(features=people(6, 1)[4:], camera=0, time=now + 1, id=["x", "y"])
        assert [one.status for one in results] == ["added"] * 2
        assert gallery.stats().rows == 6
        times = [m.first for m in gallery.search(feature=people(6, 1)[0], top_k=9).matches]
        assert sorted(times)[:1] == [now]


def test_a_backup_is_a_gallery(path: Path, tmp_path: Path) -> None:
    with Gallery.open(path, feature_engine()) as gallery:
        gallery.add(features=people(4, 1), camera=0, time=0)
        gallery.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    with Gallery.open(tmp_path / "copy.db", feature_engine()) as gallery:
        assert gallery.stats().rows == 4


def test_without_an_engine_a_gallery_is_kept_in_order(path: Path) -> None:
    with pytest.raises(InputError, match="no gallery"):
        Gallery.open(path, None)
    with Gallery.open(path, feature_engine()) as gallery:
        gallery.add(features=people(4, 1), camera=0, time=0, id=list("abcd"))
    with Gallery.open(path, None) as gallery:
        assert gallery.erase(ids="a").complete
        assert len(gallery.search(id="b").matches) == 2
        with pytest.raises(InputError, match="engine"):
            gallery.search(np.zeros((9, 9, 3), np.uint8))
        with pytest.raises(InputError, match="engine"):
            gallery.add([np.zeros((9, 9, 3), np.uint8)], camera=0, time=0)


def test_a_new_encoder_embeds_the_kept_crops_again(path: Path) -> None:
    old, new, crops = seeing_engine(), seeing_engine(), large(0, 6)
    new.encoder_sha256 = "b" * 64
    part: Any = new.encoder
    features = part.features
    part.features = lambda pixels, names=(): features(255 - pixels[:, ::-1], names)
    with Gallery.open(path, old, best_shots=1) as gallery:
        gallery.add(crops, camera=0, time=0, track=list("aabbcc"), id=list("123456"))
        gallery.add(features=old.embed(crops[:1]), camera=0, time=0, id=["7"])
        rows = gallery.get(list("1234567"))
        assert sum(row is not None and row.has_picture for row in rows) == 3
        with Gallery.open(path, old, mode="r") as reader:
            with pytest.raises(OutputError, match="rw"):
                reader.reembed(new)
            done: list[int] = []
            assert gallery.reembed(new, progress=lambda count, _: done.append(count)) == 3
            assert done == [3]
            with pytest.raises(InputError, match="another encoder"):
                reader.stats()
        assert gallery.search(crops[0]).scored == 3
    with Gallery.open(path, new, align_cameras="off") as gallery:
        assert gallery.stats().rows == 3
        assert gallery.verify().is_clean
        found = gallery.search(crops[0], method="none")
        wanted = new.embed([crops[int(m.id) - 1] for m in found.matches])
        apart = np.linalg.norm(wanted - new.embed(crops[:1]), axis=1)
        for match, distance in zip(found.matches, apart, strict=True):
            assert match.distance == pytest.approx(float(distance), abs=0.05)  # JPEG
    with pytest.raises(InputError, match="another encoder"):
        Gallery.open(path, old)


def range_of(count: int) -> list[float]:
    return [float(i) for i in range(count)]


def test_numbers_of_cameras_are_exact_after_it_was_opened_again(path: Path) -> None:
    features, cameras = people(3, 1), [2**63 - 1, 2**63 - 2, 2**53 + 1]
    with Gallery.open(path, feature_engine(), align_cameras="off") as gallery:
        gallery.add(features=features, camera=cameras, time=0)
    with Gallery.open(path, feature_engine(), align_cameras="off") as gallery:
        for camera in cameras:
            found = gallery.search(feature=features[0], cameras=camera).matches
            assert [match.camera for match in found] == [camera]


def test_times_as_far_as_years_go_can_be_opened_again(path: Path) -> None:
    ends = [253_402_300_799, -253_402_300_799]
    with Gallery.open(path, feature_engine()) as gallery:
        gallery.add(features=people(2, 1), camera=0, time=ends)
    with Gallery.open(path, feature_engine()) as gallery:
        assert gallery.stats().rows == 2
