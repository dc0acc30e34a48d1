import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from murank import InputError, MachineError
from murank.calibration import Calibrated, ThresholdTarget, calibrate
from murank.calibration.calibration_plot import write_calibration_plot
from murank.calibration.quality import quality, reliability
from murank.calibration.temperature import HIGHEST, LOWEST
from murank.sheet.canvas import check_drawing


def answers(same: int = 300, different: int = 400, apart: float = 4) -> tuple[Any, Any]:
    """Log-odds of two kinds, `apart` from each other, three times too sure."""
    random = np.random.default_rng(1)
    odds = np.concatenate(
        [random.normal(-apart / 2, 2, same), random.normal(apart / 2, 2, different)]
    )
    return 3 * odds, np.arange(len(odds)) < same


def test_quality_by_hand() -> None:
    odds, same = np.array([-2.0, 0.3, 1.5, -0.4, 40.0]), np.array([True, True, False, False, False])
    weights = np.array([0.25, 0.25, 0.2, 0.2, 0.1])
    p = [1 / (1 + np.exp(-value)) for value in odds]
    found = quality(odds, same, weights)
    terms = [-np.log(1 - p[0]), -np.log(1 - p[1]), -np.log(p[2]), -np.log(p[3]), -np.log(p[4])]
    assert found.nll == pytest.approx(np.dot(weights, terms))
    wrong = [p[0], p[1], 1 - p[2], 1 - p[3], 1 - p[4]]
    assert found.brier == pytest.approx(np.dot(weights, np.square(wrong)))
    # 15 bins: p is .119 .574 .818 .401 1.0, each alone in its bin.
    assert found.ece == pytest.approx(np.dot(weights, wrong))


def test_reliability_by_hand() -> None:
    mu = np.array([0.0, 0.05, 0.5, 1.0, 0.999])
    same = np.array([True, False, True, False, True])
    found = reliability(mu, same, np.full(5, 0.2))
    np.testing.assert_allclose(found.weight, [0.4, 0.2, 0.4])
    np.testing.assert_allclose(found.mu, [0.025, 0.5, 0.9995])
    np.testing.assert_allclose(found.different, [0.5, 0, 0.5])
    assert found.error == pytest.approx(0.4 * 0.475 + 0.2 * 0.5 + 0.4 * 0.4995)


def test_what_is_measured() -> None:
    odds, same = answers()
    found = calibrate(odds, same)
    assert 2 < found.temperature < 8
    assert found.after.nll < found.before.nll
    assert found.after.ece < found.before.ece
    mu = 1 / (1 + np.exp(-odds / found.temperature))
    point = found.point
    # The threshold is a mu of these pairs, and another formula may round it another way.
    edge = point.threshold * (1 + 1e-12)
    assert point.fmr.errors == np.sum(mu[~same] <= edge) == 4
    assert point.fnmr.errors == np.sum(mu[same] > edge)
    assert (point.fmr.pairs, point.fnmr.pairs) == (400, 300)
    assert 0.9 < found.auc < 0.99
    assert 0.05 < found.eer < 0.25
    assert len(found.det.thresholds) <= 200
    assert found.notes == ()


@pytest.mark.parametrize(
    "target",
    [ThresholdTarget("fmr", 0.05), ThresholdTarget("fnmr", 0.05), ThresholdTarget("eer", None)],
)
def test_targets(target: ThresholdTarget) -> None:
    point = calibrate(*answers(), target=target).point
    if target.kind == "eer":
        assert point.fmr.value == pytest.approx(point.fnmr.value, abs=0.01)
    else:
        assert 0.04 < getattr(point, target.kind).value <= 0.05


def test_the_threshold_is_that_of_the_order_whatever_the_temperature() -> None:
    odds, same = answers()
    one, other = calibrate(odds, same), calibrate(odds * 1.7, same, prior=0.2)
    assert (one.point.fmr, one.point.fnmr) == (other.point.fmr, other.point.fnmr)
    assert (one.eer, one.auc) == (other.eer, other.auc)
    assert one.temperature != pytest.approx(other.temperature / 1.7, rel=1e-3)


def test_notes() -> None:
    odds, same = answers(apart=40)
    found = calibrate(odds, same)
    assert found.temperature == LOWEST
    assert "0.05 is the bound" in found.notes[0]
    odds, same = answers()
    found = calibrate(-odds, same)
    assert found.temperature == HIGHEST
    assert "20 is the bound" in found.notes[0]
    assert found.notes[1:] == ("no same-person pair is a match at this threshold",)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (("fmr", 0.0), "the target fmr must be between 0 and 1, got 0.0"),
        (("fnmr", None), "the target fnmr must be between 0 and 1, got None"),
        (("fmr", float("nan")), "must be between 0 and 1, got nan"),
        (("eer", 0.1), "the target eer takes no value"),
        (("far", 0.1), "the target must be fmr, fnmr or eer, got 'far'"),
    ],
)
def test_targets_that_cannot_be(target: tuple[Any, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ThresholdTarget(*target)


@pytest.mark.parametrize(
    ("target", "counts", "message"),
    [
        (
            ThresholdTarget(),
            (1000, 299),
            r"299 pairs labelled No .* FMR at most 1 % holds: 300 are needed",
        ),
        (
            ThresholdTarget("fnmr", 0.1),
            (29, 30),
            "--fnmr",
        ),
        (ThresholdTarget("fmr", 0.03), (5, 99), "100 are needed"),
        (ThresholdTarget("eer", None), (0, 5), r"no pair of the same person \(Yes\) is there"),
        (ThresholdTarget("eer", None), (5, 0), r"no pair of two people \(No\) is there"),
    ],
)
def test_too_few_pairs(target: ThresholdTarget, counts: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibrate(*answers(*counts), target=target)


def test_just_enough_pairs() -> None:
    ThresholdTarget().check(same=1, different=300)
    ThresholdTarget("fmr", 0.003).check(same=1, different=1000)
    ThresholdTarget("fnmr", 0.1).check(same=30, different=1)
    ThresholdTarget("eer", None).check(same=1, different=1)


def test_answers_that_cannot_be_calibrated() -> None:
    odds, same = answers()
    with pytest.raises(InputError, match="answers every pair alike"):
        calibrate(np.zeros_like(odds), same)
    with pytest.raises(InputError, match="must be finite"):
        calibrate(np.where(same, np.nan, odds), same)
    with pytest.raises(InputError, match=r"bool \[n\]"):
        calibrate(odds, same[1:])
    with pytest.raises(InputError, match=r"bool \[n\]"):
        calibrate(odds, same.astype(int))
    for prior in (0, 1, float("nan")):
        with pytest.raises(InputError, match="prior must be between 0 and 1"):
            calibrate(odds, same, prior=prior)
    tied = np.where(same, -1.0, np.where(np.arange(len(odds)) % 2, -1.0, 1.0))
    with pytest.raises(InputError, match=r"no threshold keeps FMR at most 1 %: 50.00 % of the"):
        calibrate(tied, same)


@pytest.fixture(scope="module")
def measured() -> Calibrated:
    return calibrate(*answers())


def test_plot(measured: Calibrated, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "det.png"
    write_calibration_plot(file, measured)
    with Image.open(file) as image:
        pixels: NDArray[np.uint8] = np.asarray(image.convert("RGB"))
    red = (pixels[..., 0] > 180) & (pixels[..., 1:] < 90).all(-1)
    for half in np.array_split(red, 2, axis=1):  # the operating point; mu after calibration
        assert half.sum() > 50
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["det.png"]


def test_plot_leaves_no_global_state() -> None:
    pytest.importorskip("matplotlib")
    code = (
        "import sys; from murank.sheet import canvas\n"
        "before = 'matplotlib' in sys.modules;"
        "canvas.check_drawing(); print(before, 'matplotlib' in sys.modules,"
        " 'matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True", "False"]


def test_plot_without_matplotlib(
    measured: Calibrated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MachineError, match=r"murank\[plot\]"):
        check_drawing()
    with pytest.raises(MachineError, match=r"murank\[plot\]"):
        write_calibration_plot(tmp_path / "det.png", measured)
    assert list(tmp_path.iterdir()) == []
