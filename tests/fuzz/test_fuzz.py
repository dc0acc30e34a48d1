"""A fixed number of cases of each target; `make fuzz` goes on from there."""

from pathlib import Path

import pytest
from fuzz import runner
from fuzz.runner import run
from fuzz.target import Target
from fuzz.targets import targets

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.mark.parametrize("target", targets().values(), ids=lambda target: target.name)
def test_an_answer_or_one_sentence(target: Target, tmp_path: Path) -> None:
    outcomes, failures = run(target, range(target.cases), tmp_path)
    assert not failures, "\n".join(
        f"{one.target} {one.seed}: {one.why}" for one in failures[:5]
    )  # fmt: skip
    assert outcomes.total() == target.cases
    assert len(outcomes) > 1 or target.name in (
        "stage",
        "cache",
        "journal",
    )  # some are refused, some are not


def test_what_is_looked_for_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MIB", 60)  # a page that is touched takes its time

    def read(file: Path) -> None:
        kind = file.read_bytes()[0] % 4
        if kind == 1:
            raise KeyError("a bug")
        if kind == 2:
            assert len(b"x" * (240 << 20)) > 0
        if kind == 3:
            raise SystemError

    target = Target("made", [bytes([i]) for i in range(4)], [lambda data, _: data], read, "a")
    outcomes, failures = run(target, range(12), tmp_path)
    assert outcomes.keys() == {"answer", "traceback", "memory"}
    assert len(failures) == outcomes["traceback"] + outcomes["memory"]
