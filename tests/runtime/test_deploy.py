"""examples/deploy: what it promises can be read from it; with DIST=dist its steps are run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

from murank.cli import serve

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
ENGINE = ROOT / "benchmarks" / "miniature" / "engine"
DIST = os.environ.get("DIST")
with_dist = pytest.mark.skipif(DIST is None, reason="make test-dist")
LOOSEST = 15  # tenths of systemd's measure, of 100; 0 is tightest


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, each with its words."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in lines if line.strip()]


def words_of(name: str) -> list[str]:
    (words,) = (
        json.loads(text[text.index("[") :]) for kind, text in instructions() if kind == name
    )
    return list(words)


def unit() -> dict[str, list[str]]:
    """The values of the systemd unit by key."""
    text = (DEPLOY / "murank.service").read_text().replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.M):
        found.setdefault(key, []).append(value)
    return found


def test_what_is_started_is_a_command_of_ours() -> None:
    for words in (words_of("ENTRYPOINT"), shlex.split(unit()["ExecStart"][0])):
        assert [Path(words[0]).name, words[1]] == ["murank", "serve"]
        args = serve.parser().parse_args(words[2:])
        assert args.token_file is not None
        assert not args.insecure


def test_the_container_is_not_root_and_takes_what_it_hashed() -> None:
    kinds = [kind for kind, _ in instructions()]
    assert "ADD" not in kinds
    assert kinds.count("VOLUME") == 1
    last = kinds.index("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instructions()[last][1])
    assert "RUN" not in kinds[last:]
    for kind, text in instructions():
        if kind == "RUN":
            subprocess.run(["/bin/sh", "-n", "-c", text], check=True)
            assert "pip install" not in text or re.search("--require-hashes|--no-index", text)


def test_the_unit_stops_after_the_service_does() -> None:
    assert int(unit()["TimeoutStopSec"][0]) > serve.parser().get_default("grace")
    assert unit()["LimitCORE"] == ["0"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_tight() -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={LOOSEST}"]
    done = subprocess.run(
        [*command, str(DEPLOY / "murank.service")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_licences_are_named_and_shown() -> None:
    spec = importlib.util.spec_from_file_location("licenses", DEPLOY / "licenses.py")
    assert spec is not None
    assert spec.loader is not None
    licenses = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(licenses)
    for name, licence in (("numpy", "BSD"), ("pillow", "MIT"), ("threadpoolctl", "BSD")):
        one = distribution(name)
        assert licence in licenses.name_of(one)
        assert any("copyright" in text.lower() for _, text in licenses.texts_of(one))


@with_dist
def test_every_requirement_has_its_hashes_and_is_in_the_bill() -> None:
    folder = ROOT / str(DIST)
    text = (folder / "requirements.txt").read_text()
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert all("==" in one and "--hash=sha256:" in one for one in blocks)
    named = {re.split("==", one)[0].replace("_", "-").lower() for one in blocks}
    bill = json.loads((folder / "sbom.cdx.json").read_text())
    listed = {one["name"].replace("_", "-").lower() for one in bill["components"]}
    assert {"numpy", "numba", "onnxruntime", "fastapi"} <= listed <= named
    licences = (folder / "THIRD_PARTY_LICENSES.txt").read_text().lower().replace("_", "-")
    assert all(re.search(rf"^{re.escape(name)} \d", licences, re.M) for name in listed)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the Dockerfile's steps were run, as if it were the root."""
    root = tmp_path_factory.mktemp("image")
    (root / "opt").mkdir()
    shutil.copytree(ROOT / str(DIST), root / "dist")
    python = Path(sys.base_prefix) / "bin"
    env = {"PATH": f"{python}:/usr/bin:/bin", "HOME": str(root), "LC_ALL": "C.UTF-8"}
    env |= {name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "SSL_"))}
    for kind, text in instructions():
        if kind == "ENV":
            env |= dict(word.split("=", 1) for word in inside(root, text).split())
        elif kind == "RUN":
            subprocess.run(["/bin/sh", "-ec", inside(root, text)], env=env, cwd=root, check=True)
    shutil.rmtree(root / "dist")
    yield root
    for path in (root, *root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(root)


def inside(root: Path, text: str) -> str:
    """The text with its paths below another root, and nobody's user but the test's."""
    text = re.sub(r"(?<![\w/.])/(opt|dist|data|engine|tokens)\b", rf"{root}/\1", text)
    return text.replace("-o 8600 -g 8600 ", "")


@with_dist
def test_what_was_built_serves_from_a_root_that_it_cannot_write_to(built: Path) -> None:
    from service_parts import free_port

    port, tokens = str(free_port()), built / "tokens"
    shutil.copytree(ENGINE, built / "engine")
    tokens.write_text("read " + "r" * 20)
    tokens.chmod(0o400)
    temporary = built / "data" / "tmp"
    temporary.mkdir()
    for path in (built / "opt", built / "engine", *built.glob("*/**/*")):
        if not path.is_symlink() and built / "data" not in (path, *path.parents):
            path.chmod(path.stat().st_mode & 0o555)
    before = snapshot(built)
    words = [inside(built, word) for word in words_of("ENTRYPOINT")] + ["--port", port]
    if os.geteuid() == 0:  # a root without its rights, to whom a mode is a mode
        words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *words]
    env = {"NUMBA_CACHE_DIR": f"{built}/opt/murank/kernels", "PYTHONDONTWRITEBYTECODE": "1",
           "PYTHONWARNINGS": "error::RuntimeWarning"}  # fmt: skip
    # As of a container's user: into a home that can be written to Numba would compile anew.
    env |= {"PATH": "/usr/bin:/bin", "TMPDIR": str(temporary), "HOME": f"{built}/opt"}
    with subprocess.Popen(words, env=env) as process:
        try:
            health = [inside(built, word).replace("8600", port) for word in words_of("HEALTHCHECK")]
            end = time.monotonic() + 120
            while subprocess.run(health, capture_output=True).returncode:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(1)
            with pytest.raises(urllib.error.HTTPError, match="401") as refused:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models")
            refused.value.close()
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert snapshot(built) == before
    sources = (built / "opt").rglob("murank_kernels/**/*.py")
    assert all(path.stat().st_mtime_ns % 10**9 == 0 for path in sources)  # as layers keep them
    assert (built / "data" / "gallery.db").is_file()


def snapshot(root: Path) -> dict[str, int]:
    """Every file beside the volume, with its time."""
    return {
        str(path): path.lstat().st_mtime_ns
        for top in ("opt", "engine") for path in (root / top).rglob("*")
    }  # fmt: skip
