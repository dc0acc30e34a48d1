"""A pointer or a page in place of a file is called that, wherever a file is read."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_folder import make_engine

from murank import Gallery, InputError, load_features
from murank.bench.report_files import load_report
from murank.datasets import list_images
from murank.datasets.msmt17 import read_msmt17
from murank.files.stand_in import stand_in
from murank.folder.integrity import check_engine
from murank.images import load_image
from murank.pairs.labelled import load_pairs
from murank.prompt import load_template
from murank.rerank.ranking import load_ranking

POINTER = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 12345
"""


def msmt17(file: Path) -> object:
    (file.parent / "test").mkdir()
    (file.parent / "list_query.txt").write_text("\n")
    return read_msmt17(file.parent)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "features": ("features.npz", load_features),
    "features in Parquet": ("features.parquet", load_features),
    "a ranking": ("ranking.npz", load_ranking),
    "an image": ("0001_c1.jpg", load_image),
    "a prompt": ("prompt.json", load_template),
    "pairs": ("pairs.json", load_pairs),
    "a list": ("list.csv", list_images),
    "a list of MSMT17": ("list_gallery.txt", msmt17),
    "a gallery": ("gallery.db", lambda file: Gallery.open(file, None)),
    "a report": ("report.json", load_report),
}


@pytest.mark.parametrize(("name", "read"), READERS.values(), ids=list(READERS))
def test_a_pointer_is_called_one(tmp_path: Path, name: str, read: Callable[[Path], Any]) -> None:
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(InputError, match=rf"{name}.* Git LFS pointer.*git lfs pull"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["onnx/decoder.data", "onnx/vision.onnx", "manifest.json"])
def test_a_file_of_an_engine(tmp_path: Path, name: str) -> None:
    make_engine(tmp_path)
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(InputError, match=rf"{name}.* Git LFS pointer"):
        check_engine(tmp_path)


KINDS = {
    "web page": b"\r\n<!DOCTYPE html>\n<html lang='en'><head><title>Sign in</title>",
    "a page without a doctype": b"<html><body>404</body></html>",
    "a storage server's error": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "server's answer": b'{"error":"Invalid username or password."}',
    "git-annex": b"/annex/objects/SHA256E-s1--aa.jpg\n",
    "gzip": gzip.compress(b"[]"),
    "macOS": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X",
    "empty": b"",
}


@pytest.mark.parametrize("content", KINDS.values(), ids=list(KINDS))
def test_others_of_the_kind(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "crop.jpg"
    file.write_bytes(content)
    what = stand_in(file)
    assert what is not None
    with pytest.raises(InputError, match=r"crop\.jpg is") as error:
        load_image(file)
    assert what.split(":")[0] in str(error.value) or not content


def test_a_link_to_nothing(tmp_path: Path) -> None:
    """As a hub's cache has it, whose download was cut off."""
    (tmp_path / "pairs.json").symlink_to("../blobs/4d7a2146")
    with pytest.raises(InputError, match=r"pairs\.json is a link to \.\./blobs/4d7a2146"):
        load_pairs(tmp_path / "pairs.json")


def test_files_are_none(tmp_path: Path) -> None:
    engine = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
    for file in [*engine.rglob("*"), Path(__file__), *Path(__file__).parents[2].glob("docs/*")]:
        assert stand_in(file) is None, file
    shutil.copy(engine / "manifest.json", tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to("a.json")
    assert stand_in(tmp_path / "b.json") is None
    assert stand_in(tmp_path / "none") is None
