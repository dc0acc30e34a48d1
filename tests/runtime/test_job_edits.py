"""Whatever is done to a job's images and settings: the results of a fresh run, for what is new."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import FakeEngine, ImageJob, change_crop, write_crop

from murank import load_features, load_mu
from murank.crew import Lost
from murank.jobs import crews as _crews
from murank.jobs import engine_work as _work

STEPS, K = 10, 3


class Edits:
    """Random edits, one at a time."""

    def __init__(self, job: ImageJob, seed: int) -> None:
        self.job, self.random = job, np.random.default_rng(seed)
        self.k, self.order = K, "given"
        self._made = 0

    def one(self) -> str:
        """Do one, and return its name."""
        name = str(
            self.random.choice(
                ["touch", "replace", "add", "remove", "rename", "copy", "k", "order"]
            )
        )
        getattr(self, f"_{name}")()
        return name

    @property
    def options(self) -> list[object]:
        return ["--candidates", self.k, "--order", self.order, "--overwrite"]

    def _some(self) -> Path:
        folder = (self.job.query, self.job.gallery)[self.random.integers(2)]
        files = sorted(folder.iterdir())
        return files[self.random.integers(len(files))]

    def _new_name(self, folder: Path) -> Path:
        self._made += 1
        return (
            folder
            / f"{self.random.integers(1, 5):04d}_c{self._made % 3 + 1}s1_9{self._made:02d}.png"
        )

    def _touch(self) -> None:
        os.utime(self._some(), (1_000_000_000 + self._made, 1_000_000_005))

    def _replace(self) -> None:
        change_crop(self._some(), seed=int(self.random.integers(1000)))

    def _add(self) -> None:
        pixels = self.random.integers(0, 255, (8, 4, 3))
        write_crop(self._new_name(self._some().parent), pixels)

    def _remove(self) -> None:
        file = self._some()
        if len(list(file.parent.iterdir())) > K + 3:
            file.unlink()

    def _rename(self) -> None:
        file = self._some()
        file.rename(self._new_name(file.parent))

    def _copy(self) -> None:
        file = self._some()
        self._new_name(file.parent).write_bytes(file.read_bytes())

    def _k(self) -> None:
        self.k = int(self.random.integers(1, 6))

    def _order(self) -> None:
        self.order = str(self.random.choice(["given", "swapped", "both"]))


class Asked:
    """Which contents were embedded and which pairs of contents were asked about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.embedded: list[bytes] = []
        self.pairs: list[tuple[str, bytes, bytes]] = []
        embed, ask = FakeEngine.embed, FakeEngine.mu_many

        def noted_embed(engine: FakeEngine, images: Any) -> Any:
            self.embedded += [image.pixels.tobytes() for image in images]
            return embed(engine, images)

        def noted_ask(engine: FakeEngine, queries: Any, candidates: Any, *, order: str) -> Any:
            self.pairs += [
                (order, query.pixels.tobytes(), one.pixels.tobytes())
                for query, row in zip(queries, candidates, strict=True)
                for one in row
            ]
            return ask(engine, queries, candidates, order=order)

        monkeypatch.setattr(FakeEngine, "embed", noted_embed)
        monkeypatch.setattr(FakeEngine, "mu_many", noted_ask)

    def take(self) -> tuple[list[bytes], list[tuple[str, bytes, bytes]]]:
        """Return what is new since the last call."""
        found = self.embedded, self.pairs
        self.embedded, self.pairs = [], []
        return found


def results(place: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(place.glob("*.npz")) if file.is_file()}


@pytest.mark.parametrize("seed", range(2))
def test_edits_end_as_a_fresh_run_and_ask_what_is_new(
    job: ImageJob, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    edits, asked = Edits(job, seed), Asked(monkeypatch)
    known_images: set[bytes] = set()
    known_pairs: set[tuple[str, bytes, bytes]] = set()
    for step in range(STEPS):
        assert job.run("-o", job.out, *edits.options, "--quiet") == 0
        embedded, pairs = asked.take()
        fresh = job.folder / f"fresh-{step}"
        assert job.run("-o", fresh, *edits.options, "--quiet") == 0
        images_of_fresh, pairs_of_fresh = asked.take()
        needed_images, needed_pairs = set(images_of_fresh), set(pairs_of_fresh)
        assert sorted(embedded) == sorted(needed_images - known_images)
        assert sorted(pairs) == sorted(needed_pairs - known_pairs), "each once"
        known_images |= needed_images
        known_pairs |= needed_pairs
        stages = job.report()["stages"]
        wanted = results(fresh)
        assert {name: results(job.out)[name] for name in wanted} == wanted
        assert stages.keys() == wanted.keys()
        edits.one()


def test_shares_in_any_order_are_one_run(job: ImageJob, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--candidates", K, "--gallery-candidates", 2]
    whole = job.folder / "whole"
    assert job.run("-o", whole, *options) == 0
    asked = Asked(monkeypatch)
    pairs: list[tuple[str, bytes, bytes]] = []
    for share in (3, 1):
        assert job.run("-o", job.out, *options, "--share", f"{share}/3") == 0
        pairs += asked.take()[1]
        assert job.names() == {".murank-batch"}
    job.stop_at = ("given", 1)
    assert job.run("-o", job.out, *options, "--share", "2/3") == 130
    job.stop_at = None
    asked.take()
    assert job.run("-o", job.out, *options, "--share", "2/3") == 0
    pairs += asked.take()[1]
    assert len(pairs) == len(set(pairs)), "no pair is of two shares"
    assert job.run("-o", job.out, *options) == 0
    assert job.done == {}
    assert results(job.out) == results(whole)
    assert (job.report()["images_embedded"], job.report()["pairs_asked"]) == (0, 0)


@pytest.mark.parametrize("share", ["0/3", "4/3", "1/0", "1-3", "a/b", "1/3/5", "", "1/9"])
def test_what_is_no_share(job: ImageJob, capsys: pytest.CaptureFixture[str], share: str) -> None:
    assert job.run("-o", job.out, f"--share={share}") == 2
    assert "--share" in capsys.readouterr().err
    assert not job.out.exists()


def test_one_share_at_a_time(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    from murank.files.atomic import sole_writer

    place = job.out / "journal" / "share-1-of-2"
    place.mkdir(parents=True)
    with sole_writer(place):
        assert job.run("-o", job.out, "--share", "1/2") == 2
        assert "another run is at work" in capsys.readouterr().err
        assert job.run("-o", job.out, "--share", "2/2") == 0


def test_an_image_that_changes_between_the_stages_is_skipped_by_name(
    job: ImageJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = sorted(job.query.iterdir())[2]
    ask = FakeEngine.mu_many

    def meanwhile(engine: FakeEngine, queries: Any, candidates: Any, *, order: str) -> Any:
        if changed.stat().st_mtime_ns == 1_000_000_000 * 10**9:
            change_crop(changed)
        return ask(engine, queries, candidates, order=order)

    monkeypatch.setattr(FakeEngine, "mu_many", meanwhile)
    assert job.run("-o", job.out, "--candidates", K) == 0
    (skipped,) = job.report()["skipped"]
    assert (skipped["path"], skipped["pairs"]) == (str(changed), K)
    assert "was changed during the run" in skipped["reason"]
    assert job.run("-o", job.out, "--candidates", K, "--overwrite") == 0
    assert job.report()["skipped"] == []
    assert job.done["embed"] == 1


def test_answers_of_two_kinds_of_devices_do_not_stand_side_by_side(
    job: ImageJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("-o", job.out, "--candidates", 2) == 0
    monkeypatch.setattr(_work, "device_kind", lambda _providers: "another GPU")
    options = ["-o", job.out, "--candidates", 3, "--overwrite"]
    before = job.content()
    assert job.run(*options) == 2
    err = capsys.readouterr().err
    assert "another GPU" in err
    assert "--mixed" in err
    assert job.content() == before
    assert job.run(*options, "--mixed") == 0
    assert job.done == {"given": load_features(job.out / "features.npz").num_query}


def test_answers_of_other_products_are_not_taken_for_those_asked_for(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though all is known, and no engine would be loaded."""
    options = ["-o", job.out, "--overwrite"]
    assert job.run("-o", job.out) == 0
    before = job.content()
    narrow = ["--providers", "openvino", "--products", "bf16"]
    assert job.run(*options, *narrow) == 2
    err = capsys.readouterr().err
    assert "float32, and bf16 is asked for" in err
    assert "--products float32" in err
    assert job.content() == before
    assert job.run(*options, *narrow, "--mixed") == 0
    assert job.report()["pairs_asked"] == 0
    assert job.run(*options) == 0


def test_products_are_read_from_what_ran() -> None:
    from murank.machine.device_kind import products_of

    onnxruntime = {"vision": ["CPUExecutionProvider"], "decoder": ["CPUExecutionProvider"]}
    exact, narrow = ["OpenVINO CPU float32"], ["OpenVINO GPU.1 (Some Arc) fp16"]
    assert products_of(onnxruntime) == "float32"
    assert products_of({}) == "float32"
    assert products_of({"encoder": exact, "vision": exact}) == "float32"
    assert products_of({"encoder": exact, "vision": narrow, "decoder": narrow}) == "fp16"


def test_too_many_skipped_images_stop_the_job(
    job: ImageJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from murank.jobs import skip_limit as _limit

    monkeypatch.setattr(_limit, "_FEW", 3)
    for file in sorted(job.gallery.iterdir())[:4]:
        file.write_bytes(b"no picture")
    assert job.run("-o", job.out) == 2
    err = capsys.readouterr().err
    assert "--max-skipped" in err
    assert "0001_c2s1_000.png" in err
    assert job.run("-o", job.out, "--max-skipped", 3, "--overwrite") == 2
    assert job.run("-o", job.out, "--max-skipped", 4, "--overwrite") == 0
    assert len(job.report()["skipped"]) == 4
    assert job.run("-o", job.out, "--max-skipped", 4, "--strict", "--overwrite") == 2


def test_a_run_of_skipped_images_stops_the_job() -> None:
    from murank import InputError
    from murank.jobs import SkipLimit

    watch = SkipLimit().watch(1_000_000)
    watch.left_out(dict.fromkeys(range(0, 1980, 20), "why"))
    watch.left_out(dict.fromkeys(range(5000, 5099), "why"))
    with pytest.raises(InputError, match=r"199 of 1,000,000 images .* why"):
        watch.left_out({5099: "why"})


def test_a_copy_is_asked_about_once(job: ImageJob) -> None:
    for file in sorted(job.gallery.iterdir()):
        file.with_name(f"{file.stem}9.png").write_bytes(file.read_bytes())
    assert job.run("-o", job.out, "--candidates", 20) == 0
    report, count = job.report(), len(list(job.query.iterdir()))
    assert report["counts"]["byte_duplicates"] == 10
    assert job.done == {"embed": count + 10, "given": count * 10}
    mu = load_mu(job.out / "mu.npz")
    order = np.argsort(mu.candidates, axis=1)
    by_image = np.take_along_axis(mu.mu, order, axis=1)
    np.testing.assert_array_equal(by_image[:, ::2], by_image[:, 1::2])


def test_what_leaves_a_job_is_forgotten_by_pruning(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-o", job.out, "--candidates", K, "--order", "both", "--overwrite"]
    gone = sorted(job.gallery.iterdir())[3]
    change_crop(gone)
    sorted(job.gallery.iterdir())[5].write_bytes(b"no picture")
    assert job.run(*options) == 0
    digest = hashlib.sha256(gone.read_bytes()).digest()
    raw = gone.read_bytes()
    gone.unlink()
    assert job.run(*options) == 0
    assert any(digest in file.read_bytes() for file in (job.out / "journal").iterdir())
    assert job.run(*options, "--prune", "--share", "1/2") == 2
    assert "--prune" in capsys.readouterr().err
    assert job.run(*options, "--prune") == 0
    wanted = results(job.out)
    assert not any(digest in file.read_bytes() for file in (job.out / "journal").iterdir())
    assert not any(str(gone).encode() in file.read_bytes() for file in job.out.rglob("*.seg"))
    assert job.run(*options) == 0
    assert job.done == {}
    assert results(job.out) == wanted
    gone.write_bytes(raw)
    assert job.run(*options) == 0
    assert job.done["embed"] == 1


class Fragile:
    """A crew whose processes end over one image."""

    size = 1

    def __init__(self, crew: Any, poison: Path) -> None:
        self._crew, self._poison = crew, str(poison)

    def answers(self, units: Any) -> Any:
        for unit in units:
            yield from self._one(unit)

    def _one(self, unit: Any) -> Any:
        if self._poison not in unit.paths:
            yield from self._crew.answers([unit])
        elif parts := unit.split():
            for part in parts:
                yield from self._one(part)
        else:
            yield unit, Lost("it ends the process that works on it (signal 11)")

    def close(self) -> None:
        self._crew.close()


@pytest.mark.parametrize("stage", ["embed", "mu"])
def test_an_image_that_ends_processes_is_skipped_and_tried_again(
    job: ImageJob, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    poison, make = sorted(job.query.iterdir())[1], _crews._crew
    options = ["-o", job.out, "--candidates", K, "--overwrite"]
    if stage == "mu":
        assert job.run("-o", job.out, "--no-mu") == 0
    with monkeypatch.context() as patch:
        patch.setattr(_crews, "_crew", lambda *who: Fragile(make(*who), poison))
        assert job.run(*options) == 0
    (skipped,) = job.report()["skipped"]
    assert skipped["path"] == str(poison)
    assert "signal 11" in skipped["reason"]
    assert skipped.get("pairs") == (K if stage == "mu" else None)
    assert job.run(*options) == 0
    assert job.report()["skipped"] == []
    assert results(job.out).keys() == {"features.npz", "mu.npz"}
