"""What the service writes: lines of an audit, and a socket file."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from faults.covered import written
from faults.shim import Shim, in_child

from murank import OutputError
from murank.service.audit import Audit

# The gallery's file is stopped in test_gallery_kill.py, wherever it is written.
written("serve --gallery")(lambda: None)


@written("serve --audit")
def test_a_kill_costs_the_audit_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"

    def write() -> int:
        audit = Audit(file)
        for number in range(3):
            audit.write("search", number=number)
            print(number, flush=True)
        return 0

    whole = in_child(write, Shim(tmp_path))
    assert whole.code == 0
    for at in range(1, len(whole.steps) + 1):
        in_child(write, Shim(tmp_path, at, kill=True))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["number"] for line in lines[:3]] == [0, 1, 2]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("torn", ['{"time": "20', "", '{"whole": 1}\n'])
def test_a_line_that_a_power_cut_tore_does_not_spoil_the_next(tmp_path: Path, torn: str) -> None:
    file = tmp_path / "audit.log"
    file.write_text(torn)
    audit = Audit(file)
    audit.write("erase", rows=1)
    audit.close()
    audit.close()
    assert json.loads(file.read_text().splitlines()[-1])["rows"] == 1
    assert file.read_text().startswith(torn)


def test_an_audit_that_cannot_be_kept_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match="audit"):
        Audit(tmp_path / "none" / "audit.log")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="link"):
        Audit(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
    audit = Audit(tmp_path / "audit.log")

    def full(_file: int, data: bytes) -> int:
        return len(data) - 1

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="full"):
        audit.write("search")
    audit.close()


@written("serve --uds")
def test_a_socket_file_replaces_only_what_nobody_listens_at(tmp_path: Path) -> None:
    listening: Any = pytest.importorskip("murank.service.listening")
    path = tmp_path / "s"
    first = listening.listen_in(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(OutputError, match="another service"):
        listening.listen_in(path)
    first.close()  # killed: the file stays
    listening.listen_in(path).close()
    path.unlink()
    path.write_text("somebody's")
    with pytest.raises(OutputError, match="no socket"):
        listening.listen_in(path)
    assert path.read_text() == "somebody's"
    with pytest.raises(OutputError, match="long"):
        listening.listen_in(tmp_path / ("n" * 200))


def test_a_port_that_is_taken_is_told() -> None:
    listening: Any = pytest.importorskip("murank.service.listening")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OutputError, match="port"):
            listening.listen_at("127.0.0.1", taken.getsockname()[1])
