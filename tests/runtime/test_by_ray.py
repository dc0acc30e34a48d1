import os
import sys
from pathlib import Path

import pytest
from image_job import ImageJob


def test_without_ray(
    job: ImageJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    before = dict(os.environ)
    assert job.run("-o", job.out, "--workers", "ray") == 3
    assert "pip install 'murank[ray]'" in capsys.readouterr().err
    assert dict(os.environ) == before
    assert not Path(job.out, "job.json").exists()
