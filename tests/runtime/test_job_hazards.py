"""Jobs whose files, shares and workers do what nobody wants of them."""

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import FakeEngine, ImageJob

from murank import InputError, load_features, load_mu
from murank.files.atomic import sole_writer
from murank.jobs import JobFolder, SkipLimit
from murank.jobs import crews as _crews
from murank.journal import Journal

K = 3


def test_a_renamed_image_leaves_no_name_behind_pruning(job: ImageJob) -> None:
    options = ["-o", job.out, "--candidates", K, "--overwrite"]
    assert job.run(*options) == 0
    old = sorted(job.gallery.iterdir())[2]
    old.rename(old.with_name("0001_c3s1_777.png"))
    assert job.run(*options, "--prune") == 0
    assert not any(str(old).encode() in file.read_bytes() for file in job.out.rglob("*.seg"))


def test_pruning_keeps_all_images_of_given_features(job: ImageJob) -> None:
    assert job.run("-o", job.folder / "embedded", "--no-mu") == 0
    source = ["--features", job.folder / "embedded" / "features.npz"]
    for k, options in ((6, []), (1, ["--prune"]), (6, [])):
        assert (
            job.run("-o", job.out, "--candidates", k, "--overwrite", *options, source=source) == 0
        )
    assert job.done == {}


def test_pruning_waits_for_no_share(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.out, "--candidates", K, "--share", "1/2") == 0
    before = {file: file.read_bytes() for file in job.out.rglob("*.seg")}
    with sole_writer(job.out / "journal" / "share-1-of-2"):
        assert job.run("-o", job.out, "--candidates", K, "--prune") == 2
    assert "another run is at work" in capsys.readouterr().err
    assert before.items() <= {file: file.read_bytes() for file in job.out.rglob("*.seg")}.items()
    assert job.run("-o", job.out, "--candidates", K, "--prune", "--overwrite") == 0
    assert job.done == {}
    assert not (job.out / "journal" / "share-1-of-2").exists()


def test_a_late_share_leaves_a_finished_job_finished(job: ImageJob) -> None:
    options = ["-o", job.out, "--candidates", K]
    assert job.run(*options, "--share", "1/2") == 0
    enter = JobFolder.__enter__
    ran: list[JobFolder] = []

    def meanwhile(folder: JobFolder) -> JobFolder:
        entered = enter(folder)
        if not ran:
            ran.append(folder)
            assert job.run(*options) == 0
        return entered

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobFolder, "__enter__", meanwhile)
        assert job.run(*options, "--share", "2/2") == 0
    assert job.names() == {"features.npz", "mu.npz", "job.json"}


def test_a_share_without_a_readable_query_has_nothing_to_ask(job: ImageJob) -> None:
    for file in sorted(job.query.iterdir())[:2]:
        file.write_bytes(b"no picture")
    for share in ("1/2", "2/2"):
        assert job.run("-o", job.out, "--candidates", K, "--share", share) == 0
    assert job.run("-o", job.out, "--candidates", K) == 0
    assert job.done == {}


def test_a_copy_stands_in_where_its_twin_vanishes(
    job: ImageJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sorted(job.gallery.iterdir())[0]
    twin = first.with_name("0009_c3s1_000.png")
    twin.write_bytes(first.read_bytes())
    ask = FakeEngine.mu_many

    def meanwhile(engine: FakeEngine, *images: Any, **options: Any) -> Any:
        first.unlink(missing_ok=True)
        return ask(engine, *images, **options)

    assert job.run("-o", job.out, "--no-mu") == 0
    monkeypatch.setattr(FakeEngine, "mu_many", meanwhile)
    assert job.run("-o", job.out, "--candidates", 20, "--overwrite") == 0
    assert {one["path"] for one in job.report()["skipped"]} <= {str(first)}
    mu = load_mu(job.out / "mu.npz")
    order = np.argsort(mu.candidates, axis=1)
    by_image = np.take_along_axis(mu.mu, order, axis=1)
    paths = load_features(job.out / "features.npz").gallery.paths.tolist()
    np.testing.assert_array_equal(
        by_image[:, paths.index(str(first))], by_image[:, paths.index(str(twin))]
    )


def test_a_file_that_is_query_and_gallery_is_embedded_once(job: ImageJob) -> None:
    source = ["--query", job.gallery, "--gallery", job.gallery]
    assert job.run("-o", job.out, "--candidates", 2, source=source) == 0
    count = len(list(job.gallery.iterdir()))
    assert job.done["embed"] == job.report()["images_embedded"] == count


def test_a_crew_that_loses_units_is_a_bug_and_no_result(job: ImageJob) -> None:
    class Forgetful:
        size = 1

        def __init__(self, crew: Any) -> None:
            self._crew, self.close = crew, crew.close

        def answers(self, units: Any) -> Any:
            yield from self._crew.answers(list(units)[:1])

    make = _crews._crew
    for options in (["--no-mu"], []):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_crews, "_crew", lambda *who: Forgetful(make(*who)))
            with pytest.raises(RuntimeError, match="come back"):
                job.run("-o", job.out, "--overwrite", *options)
        assert "job.json" not in job.names()


def test_more_segments_than_a_process_may_open(tmp_path: Path) -> None:
    for number in range(80):
        journal = Journal(tmp_path / "none", tmp_path / "journal")
        journal.record_files([f"/{number}"], [(1, 2, 3)], [bytes(32)])
        journal.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
    try:
        journal = Journal(tmp_path / "journal")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert journal.digest("/79", (1, 2, 3)) == bytes(32)


def test_scattered_images_that_are_gone_are_not_in_a_row() -> None:
    watch = SkipLimit().watch(13_200, in_order=False)
    watch.left_out(dict.fromkeys(range(132), "why"))
    with pytest.raises(InputError, match="133 of 13,200"):
        watch.left_out({132: "why"})
