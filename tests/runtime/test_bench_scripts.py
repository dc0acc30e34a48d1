"""What the scripts of benchmarks/ must not do with what they are given."""

import sys

import end_to_end
import numpy as np
import precision
import pytest


def test_log_odds_are_finite_where_float32_is_full() -> None:
    mu = np.array([0.0, 1e-30, 0.25, 1 - 2**-24, 1.0], np.float32)
    found = precision._log_odds(mu)
    assert np.isfinite(found).all()
    exact = mu[1:4].astype(float)
    assert found[1:4] == pytest.approx(np.log(exact) - np.log1p(-exact))
    assert found[4] == found[3]
    assert found[0] < found[1]


def test_each_round_has_queries_that_nobody_asked_before() -> None:
    for model, count in end_to_end._ASKED.items():
        most = end_to_end.most_rounds(model)
        # The last query warms up.
        assert most * count <= end_to_end.QUERIES - 1 < (most + 1) * count


@pytest.mark.parametrize("rounds", ["0", "-1", "11"])
def test_rounds_beyond_the_queries_are_refused(
    rounds: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_to_end, "prepare", None)
    monkeypatch.setattr(sys, "argv", ["end_to_end.py", "--rounds", rounds])
    with pytest.raises(SystemExit, match="2"):
        end_to_end.main()
    assert f"--rounds must be in 1..9, got {rounds}" in capsys.readouterr().err
