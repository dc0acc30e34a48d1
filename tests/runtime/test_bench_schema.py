"""Reports: what is written can be read, what is wrong is refused, all is documented."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from bench_fakes import report, sample

from murank import InputError, OutputError
from murank.bench.bench_settings import BenchSettings
from murank.bench.figures import section_of
from murank.bench.report_comparison import compare
from murank.bench.report_files import load_report, report_text, write_report
from murank.bench.schema import BenchReport, ColdFigures, Section, ServerFigures
from murank.files.records import Record

DOCS = Path(__file__).parents[2] / "docs" / "bench-schema.md"


@pytest.fixture
def whole() -> BenchReport:
    section = section_of([sample(0.1), sample(0.2)], BenchSettings(deadline_ms=150.0))
    cold = ColdFigures(3, 200.0, 50.0, 10.0, 40.0, 20.0, 300.0)
    return report(section, uncached=section, cold=cold, sweep={"1": section, "20": section})


def test_written_and_read(tmp_path: Path, whole: BenchReport) -> None:
    file = tmp_path / "a.json"
    write_report(file, whole)
    assert load_report(file) == whole
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["schema_version"] == 4
    assert report_text(load_report(file)) + "\n" == file.read_text()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_older_reports_are_read(tmp_path: Path, whole: BenchReport, version: int) -> None:
    """What each did not know of, at the places where it stands today."""
    assert whole.cached is not None
    fared = ServerFigures(2, 0, 1000.0, 0, 662, "valid")
    served = replace(whole.cached, server=fared)
    data = json.loads(report_text(replace(whole, cached=served)))
    for section in (data["cached"], data["uncached"], *data["sweep"].values()):
        for name in ("target", "arrivals_us", "waits_us", "services_us"):
            del section[name]
        del section["latency"]["p90_early_ms"], section["latency"]["p99_early_ms"]
    del data["cached"]["server"]["late"], data["cached"]["server"]["least_queries"]
    if version < 3:
        del data["settings"]["alignment"]
    if version < 2:
        del data["notes"]
    file = tmp_path / "a.json"
    file.write_text(json.dumps({**data, "schema_version": version}))

    def as_it_was(section: Section) -> Section:
        return replace(section, target=None, arrivals_us=None, waits_us=None, services_us=None)

    found = load_report(file)
    assert found.cached == replace(
        as_it_was(served), server=replace(fared, late=None, least_queries=None)
    )
    assert found.uncached is not None
    assert found.uncached == found.sweep["20"] == as_it_was(whole.cached)
    rest: dict[str, Any] = {"cached": None, "uncached": None, "sweep": {}}
    assert replace(found, **rest) == replace(whole, **rest)
    assert compare(found, whole).verdict == "undecided"  # of two samples


def test_a_report_of_nothing_but_a_cold_start(tmp_path: Path, whole: BenchReport) -> None:
    bare = replace(whole, status="interrupted", cached=None, uncached=None, memory=None, sweep={})
    write_report(tmp_path / "a.json", bare)
    assert load_report(tmp_path / "a.json") == bare


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema_version"], 5, "made by a newer murank (schema_version 5, this one reads 4)"),
        (["schema_version"], 0, "schema_version must be 4, got 0"),
        (["schema_version"], True, "schema_version must be a whole number"),
        (["cached", "waits_us"], [-1], "cached.waits_us must be a list of whole micro"),
        (["status"], "done", "status must be one of complete, interrupted, got 'done'"),
        (["settings", "scenario"], "Single", "settings.scenario must be one of SingleStream"),
        (["settings", "qps"], 0, "settings.qps must be above 0"),
        (["cached", "latencies_us"], [], "cached.latencies_us must be a list of whole micro"),
        (["cached", "latencies_us"], [1.5], "cached.latencies_us must be a list of whole micro"),
        (["cached", "latencies_us"], [True], "cached.latencies_us must be a list of whole micro"),
        (["cached", "latencies_us"], [-1], "cached.latencies_us must be a list of whole micro"),
        (["cached", "latency", "count"], 0, "cached.latency.count must be at least 1"),
        (["cached", "latency", "p50_ms"], "9", "cached.latency.p50_ms must be a number, got '9'"),
        (["cached", "stages", "sleep"], {}, "a key of cached.stages must be one of decode"),
        (["cached", "extra"], 1, "cached has an unknown key 'extra'"),
        (["environment", "cores"], True, "environment.cores must be a whole number"),
        (["environment", "providers"], {"a": "b"}, "environment.providers['a'] must be a list of"),
        (["environment", "engine_sha256"], "x", "environment.engine_sha256 must be a sha256"),
    ],
)
def test_refused(
    tmp_path: Path, whole: BenchReport, path: list[str], value: object, message: str
) -> None:
    data = json.loads(report_text(whole))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = tmp_path / "a.json"
    file.write_text(json.dumps(data))
    with pytest.raises(InputError) as error:
        load_report(file)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{file} is no report of murank bench: ")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_no_json(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.json is (no report of murank bench|empty)"):
        load_report(file)


def test_files_that_are_not_there(tmp_path: Path, whole: BenchReport) -> None:
    with pytest.raises(InputError, match=r"none\.json"):
        load_report(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_report(tmp_path / "file" / "a.json", whole)


def records(kind: Any) -> Iterator[type[Record]]:
    """All record classes that a type holds, at any depth."""
    if isinstance(kind, type) and issubclass(kind, Record):
        yield kind
        for hint in get_type_hints(kind, include_extras=True).values():
            yield from records(hint)
    for argument in get_args(kind):
        yield from records(argument)


def test_every_key_is_documented() -> None:
    text = DOCS.read_text()
    names = {name for kind in records(BenchReport) for name in get_type_hints(kind)}
    assert len(names) > 60
    assert {name for name in names if f"`{name}`" not in text} == set()
