"""`murank serve`: what it does not start with."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusal import refusing

from murank.cli import serve

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"


@pytest.mark.parametrize(
    ("options", "names", "code"),
    [
        (["--host", "0.0.0.0"], "--token-file", 2),  # noqa: S104
        (["--host", "192.0.2.1"], "--token-file", 2),
        (["--host", "nowhere.invalid", "--insecure"], "--host", 2),
        (["--token-file", "none"], "--token-file", 2),
        (["--ssl-certfile", "a"], "--ssl-keyfile", 2),
        (["--ssl-certfile", "a", "--ssl-keyfile", "b"], "--ssl-certfile", 2),
        (["--retention", "72h"], "--gallery", 2),
        (["--relate"], "--gallery", 2),
        (["--retention", "soon", "--gallery", "g"], "--retention", 2),
        (["--port", "0"], "--port", 2),
        (["--port", "70000"], "--port", 2),
        (["--queue", "0"], "--queue", 2),
        (["--grace", "-1"], "--grace", 2),
        (["--grace", "nan"], "--grace", 2),
        (["--deadline-ms", "0"], "--deadline-ms", 2),
        (["--deadline-ms", "inf"], "--deadline-ms", 2),
        (["--audit", "none/audit.log"], "--audit", 2),
        (["--uds", "none/socket"], "--uds", 2),
        (["--gallery", "none/gallery.db"], "none/gallery.db", 2),
        (["--sha256", "0" * 64], "sha256", 2),
    ],
)
def test_it_does_not_start(
    options: list[str], names: str, code: int, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("fastapi")
    monkeypatch.chdir(tmp_path)
    where = [] if "--uds" in options or "--host" in options else ["--uds", "socket"]
    refusing(tmp_path, capsys)("serve", ENGINE, *where, *options, names=names, code=code)


def test_without_its_packages_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else name)
    refusing(tmp_path, capsys)("serve", ENGINE, names="murank[serve]", code=3)
