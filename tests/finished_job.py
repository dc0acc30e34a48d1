"""A job.json as `murank score` writes it, beside files that are there already."""

import json
from pathlib import Path
from typing import Any

from murank.jobs import JobReport
from murank.jobs.job_report import AskedAlignment, AskedEngine
from murank.rerank.alignment import Alignment


def write_job(folder: Path, *names: str, **changes: Any) -> Path:
    """Let a folder be a finished job of these files; without names, of all that are there."""
    stages = names or tuple(file.name for file in folder.glob("*.npz"))
    told: dict[str, Any] = {
        "engine": AskedEngine("engine", "ab" * 32, "cd" * 32, "fp32", {}),
        "candidates": None, "gallery_candidates": None, "order": None, "counts": {},
        "skipped": [], "stages": dict.fromkeys(stages, "made"),
        "asked_alignment": AskedAlignment.of(Alignment()), "alignment": {}, "image_root": "",
        "unlabelled": None, "bits": None, "mu_defaults": {},
    }  # fmt: skip
    report = JobReport(**{**told, **changes}).to_json()
    (folder / "job.json").write_text(json.dumps(report))
    return folder
