"""A calibration written into the engine folder that it was measured with."""

from dataclasses import replace
from pathlib import Path

from murank._exceptions import InputError
from murank._version import __version__
from murank.calibration.measure import Calibrated
from murank.files.atomic import replace_file, sole_writer
from murank.folder.manifest import (
    Calibration,
    Manifest,
    MuDefaults,
    engine_sha256,
    manifest_bytes,
    manifest_sha256,
    read_manifest,
)
from murank.folder.manifest_fields import MANIFEST
from murank.rerank.alignment import Done
from murank.rerank.proposal import Proposal


def store_calibration(
    folder: Path, manifest: Manifest, sha256: str, measured: Calibrated, *, pairs_sha256: str
) -> str:
    """Put what was measured into manifest.json, and return the engine's new sha256.

    The scorer's tau becomes the temperature, so that every mu is calibrated from then on. All else
    stays; whoever reads the folder meanwhile finds the old manifest or the new one, whole. Who
    calls keeps other writers out (`sole_writer`), from before the engine was read.

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
    replace_file(folder / MANIFEST, lambda file: file.write(changed))
    return engine_sha256(folder)


def _calibrated(manifest: Manifest, measured: Calibrated, pairs_sha256: str) -> Manifest:
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
    # What was proposed by mu at another temperature is not of this one.
    return replace(manifest, scorer=scorer, calibration=record, mu_defaults={})


def store_defaults(folder: Path, proposal: Proposal, *, asked: str, alignment: Done) -> str:
    """Put a proposal into manifest.json, for its method, and return the engine's new sha256.

    Parameters
    ----------
    folder
        The engine.
    proposal
        By mu of this engine.
    alignment
        Of the features it was proposed on.
    asked
        Sha256 of the engine that gave mu, without proposals: they change no answer.

    Raises
    ------
    InputError
        It is of another engine, or of this one before it was calibrated.
    OutputError
        The folder cannot be written to, or another process is at work in it.
    """
    with sole_writer(folder):
        manifest = read_manifest(folder)
        if asked != manifest_sha256(manifest.answering):
            raise InputError(
                f"{folder} is not the engine that was asked for mu, or has changed since: run "
                "murank score with it again"
            )
        gain = proposal.held_out
        record = MuDefaults(
            alpha=proposal.alpha, candidates=proposal.candidates, gain=gain.mean, low=gain.low,
            high=gain.high, queries=gain.num_queries, people=proposal.people,
            alignment=alignment, engine_sha256=asked, murank_version=__version__,
        )  # fmt: skip
        defaults = {**manifest.mu_defaults, proposal.method: record}
        changed = manifest_bytes(replace(manifest, mu_defaults=defaults))
        replace_file(folder / MANIFEST, lambda file: file.write(changed))
        return engine_sha256(folder)
