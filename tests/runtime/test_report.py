"""The page of `murank rerank --report`: what is in it, and what is not."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from hostile_names import HOSTILE, make_images
from refusal import Refuse

from murank.cli import main
from murank_kernels import evaluate_rank

PEOPLE, CAMERAS = 6, 3
MARKUP = "<img src=x onerror=alert(1)>\"&'"  # a name may hold all of this
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Elements with their attributes, texts, and whether all that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.all if name == tag]


class Made:
    """Features of images of hostile names, with mu of their candidates."""

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(5)
        self.folder = folder
        name = f"{HOSTILE}{MARKUP}"
        self.gallery = make_images(folder / "g", people=PEOPLE, cameras=CAMERAS, name=name)
        self.query = make_images(folder / "q", people=PEOPLE, cameras=1, name=name)
        self.g_pids = np.repeat(np.arange(PEOPLE), CAMERAS)
        self.g_camids = np.tile(np.arange(CAMERAS), PEOPLE)
        self.q_pids, self.q_camids = np.arange(PEOPLE), np.zeros(PEOPLE, int)
        people = random.normal(size=(PEOPLE, 16))
        pids = np.concatenate([self.q_pids, self.g_pids])
        self.features = (people[pids] + 1.2 * random.normal(size=(len(pids), 16))).astype("f4")
        self.candidates = np.argsort(distances_of(self), axis=1)[:, :5]
        self.mu = random.random((PEOPLE, 5)).astype("f4")
        self.file, self.mu_file = folder / "f.npz", folder / "mu.npz"
        paths = [str(path) for path in (*self.query, *self.gallery)]
        np.savez(
            self.file, features=self.features, paths=np.array(paths), pids=pids,
            camids=np.concatenate([self.q_camids, self.g_camids]), num_query=PEOPLE,
        )  # fmt: skip
        np.savez(self.mu_file, probs=self.mu, gallery_indices=self.candidates)

    def run(self, *options: object, file: Path | None = None) -> int:
        words = ["rerank", file or self.file, "--method", "simple", "--mu", self.mu_file]
        return main(list(map(str, [*words, "--quiet", *options])))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("report"))


@pytest.fixture
def page(made: Made, tmp_path: Path) -> tuple[str, Path]:
    file = tmp_path / "r.html"
    assert made.run("--report", file) == 0
    return file.read_text(), file


def test_nothing_is_fetched_run_or_forged(page: tuple[str, Path]) -> None:
    text, file = page
    found = Page(text)
    assert file.stat().st_mode & 0o777 == 0o600
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert {"http-equiv": "Content-Security-Policy", "content": policy} in found.named("meta")
    assert not {name for name, _ in found.all} & {
        "script", "link", "iframe", "object", "a", "form", "base", "audio", "video", "input",
    }  # fmt: skip
    for _, attributes in found.all:
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:image/jpeg;base64,").startswith("data:image/jpeg")
    assert "url(" not in text
    assert "@import" not in text
    assert "onerror" in found.texts["body"][0]  # as the text of a name, and nowhere else
    assert "\x1b" not in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_it_can_be_read_without_looking(page: tuple[str, Path]) -> None:
    found = Page(page[0])
    levels = [int(name[1]) for name, _ in found.all if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(found.texts["caption"]) == len(found.texts["table"])
    assert all(one["scope"] in ("row", "col") for one in found.named("th"))
    assert len(found.named("img")) > 10
    assert all(one["alt"] for one in found.named("img"))
    assert len(found.named("svg")) == 2
    assert all(one["role"] == "img" and one["aria-label"] for one in found.named("svg"))
    assert ("html", {"lang": "en"}) in found.all
    assert "candidate match" in found.texts["header"][0]


def test_the_numbers(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.html"
    assert made.run("--report", file, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    text = file.read_text()
    labels = made.q_pids, made.g_pids, made.q_camids, made.g_camids
    curves = {"encoder": metrics["before"], "simple + mu": metrics["after"]}
    for name, values in curves.items():
        keys = ("mAP", "mINP", "rank-1", "rank-5", "rank-10")
        cells = "".join(f"<td>{100 * values[key]:.2f}</td>" for key in keys)
        assert f'<th scope="row">{name}</th>{cells}' in text
    same = made.g_pids[made.candidates] == made.q_pids[:, None]
    other_camera = made.g_camids[made.candidates] != made.q_camids[:, None]
    right, wrong = made.mu[same & other_camera], made.mu[~same]
    for values in (right, wrong):
        assert f"({len(values)} pairs)" in text
        assert f"the median is {np.median(values):.2f}" in text
    encoder = evaluate_rank(distances_of(made), *labels)
    assert f"encoder: {100 * encoder.cmc[0]:.1f} percent at rank 1" in text


def distances_of(made: Made) -> Any:
    units = made.features / np.linalg.norm(made.features, axis=1, keepdims=True)
    return (1 - units[:PEOPLE] @ units[PEOPLE:].T).astype(np.float32)


def test_without_pictures_and_labels(made: Made, tmp_path: Path) -> None:
    arrays = dict(np.load(made.file))
    del arrays["pids"]
    arrays["paths"] = np.array([f"query/{i}" for i in range(len(arrays["paths"]))])
    np.savez(tmp_path / "f.npz", **arrays)
    file = tmp_path / "r.html"
    assert made.run("--report", file, "--no-pictures", file=tmp_path / "f.npz") == 0
    found = Page(file.read_text())
    assert found.named("img") == []
    assert len(found.named("svg")) == 1
    assert "not evaluated" in found.texts["main"][0]
    del arrays["paths"]
    np.savez(tmp_path / "f.npz", **arrays)
    assert made.run("--report", file, "--overwrite", file=tmp_path / "f.npz") == 2


def test_changes_without_labels_are_shown(made: Made, tmp_path: Path) -> None:
    arrays = dict(np.load(made.file))
    del arrays["camids"]
    np.savez(tmp_path / "f.npz", **arrays)
    file = tmp_path / "r.html"
    assert made.run("--report", file, file=tmp_path / "f.npz") == 0
    assert "unknown" in {one.get("class") for one in Page(file.read_text()).named("li")}


def test_what_is_refused(made: Made, tmp_path: Path, refuse: Refuse) -> None:
    words = ["rerank", made.file, "--method", "none"]
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "d.html").mkdir()
    refuse(*words, "--report", tmp_path / "r.pdf", names="--report")
    refuse(*words, "--no-pictures", names="--no-pictures")
    refuse(*words, "--report", tmp_path / "r.html", "-o", tmp_path / "r.html", names="-o")
    refuse(*words, "--report", tmp_path / "mine.html", names="mine.html")
    refuse(*words, "--report", tmp_path / "d.html", "--overwrite", names="d.html")
    refuse(*words, "--report", tmp_path / "r.html", "--image-root", tmp_path, "--no-pictures",
           names="--image-root")  # fmt: skip
    refuse("rerank", made.file, "--method", "none", "--report", tmp_path / "r.html", "--progress",
           tmp_path / "r.html", names="--progress")  # fmt: skip


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_has_nothing_to_complain_of(page: tuple[str, Path]) -> None:
    with Browser() as browser:
        browser.open(page[1].as_uri())
        assert browser.complaints == []
        loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
        assert browser.value(loaded)
        assert browser.value("performance.getEntriesByType('resource').length") == 0
        assert browser.value("document.documentElement.scrollWidth <= innerWidth")
