"""A calibration written into the engine folder that it was measured with."""

import contextlib
import os
import secrets
from dataclasses import replace
from pathlib import Path

from murank._atomic import readable_errors, write_files
from murank._exceptions import InputError
from murank._version import __version__
from murank.calibration._measure import Measured
from murank.engine.manifest import (
    MANIFEST,
    PLANS,
    Calibration,
    Manifest,
    engine_sha256,
    manifest_bytes,
)


def store_calibration(
    folder: Path, manifest: Manifest, sha256: str, measured: Measured, *, pairs_sha256: str
) -> str:
    """Put what was measured into manifest.json, and return the engine's new sha256.

    The scorer's tau becomes the temperature, so that every mu is calibrated from then on. All else
    stays; whoever reads the folder meanwhile finds the old manifest or the new one, whole.

    Parameters
    ----------
    folder
        The engine.
    manifest, sha256
        Of the engine as it was measured.
    measured
        What `calibrate` returned.
    pairs_sha256
        Of the file of pairs.

    Raises
    ------
    InputError
        The engine has no scorer, or has changed since.
    OutputError
        The folder cannot be written to.
    """
    changed = manifest_bytes(_calibrated(manifest, measured, pairs_sha256))
    if engine_sha256(folder) != sha256:
        raise InputError(f"{folder} has changed since it was loaded; calibrate it again")
    _replace(folder, changed)
    return engine_sha256(folder)


def _calibrated(manifest: Manifest, measured: Measured, pairs_sha256: str) -> Manifest:
    exported = manifest.exported_scorer
    if manifest.scorer is None or exported is None:
        raise InputError("this engine has no scorer of image pairs to calibrate")
    point = measured.point
    record = Calibration(
        precision=manifest.precision,
        temperature=measured.temperature,
        exported_tau=exported.tau,
        threshold=point.threshold,
        target=measured.target.kind,
        target_value=measured.target.value,
        prior=measured.prior,
        fmr=point.fmr.value,
        fnmr=point.fnmr.value,
        same_pairs=point.fnmr.pairs,
        different_pairs=point.fmr.pairs,
        pairs_sha256=pairs_sha256,
        murank_version=__version__,
    )
    scorer = replace(manifest.scorer, tau=measured.temperature)
    return replace(manifest, scorer=scorer, calibration=record)


def _replace(folder: Path, raw: bytes) -> None:
    """Replace manifest.json, by way of the one place where a reader expects unlisted files."""
    plans = folder / PLANS
    was_there = plans.is_dir()
    aside = f"{secrets.token_hex(8)}-{MANIFEST}"
    with readable_errors(folder):
        mode = (folder / MANIFEST).stat().st_mode & 0o777
        try:
            write_files(plans, {aside: lambda file: file.write(raw)})
            (plans / aside).chmod(mode)  # whoever could read the engine still can
            (plans / aside).replace(folder / MANIFEST)
        finally:
            (plans / aside).unlink(missing_ok=True)
            if not was_there:
                with contextlib.suppress(OSError):
                    plans.rmdir()
        _sync(folder)


def _sync(folder: Path) -> None:
    """Make the rename durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
