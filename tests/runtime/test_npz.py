import contextlib
import mmap
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from murank import InputError, load_features
from murank.files import npz as _npz
from murank.files.mapped import let_go


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_features(tmp_path / "none.npz")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        load_features(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off", b"\x80\x04K\x01."])
def test_not_an_archive(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "f.npz"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"f\.npz is "):
        load_features(file)


def test_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"f\.npy is one array"):
        load_features(tmp_path / "f.npy")


def test_missing_key_names_those_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", colours=np.zeros(3), paths=np.array(["a"]))
    with pytest.raises(InputError, match=r"lacks features; it holds: colours, paths"):
        load_features(tmp_path / "f.npz")


def is_refused(file: Path) -> bool:
    try:
        load_features(file)
    except InputError as error:
        return file.name in str(error)
    return False


@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_or_damaged_at_any_place(tmp_path: Path, compressed: bool) -> None:
    """Cutting or changing the file is told as one error, wherever it happens, or does no harm."""
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "f.npz", features=np.ones((40, 8)), paths=np.array(["query"] + ["g"] * 39))
    whole = (tmp_path / "f.npz").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for place in random.integers(0, len(whole), 150):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        for content in (whole[:place], bytes(changed)):
            (tmp_path / "g.npz").write_bytes(content)
            refused += is_refused(tmp_path / "g.npz")
    assert refused > 150  # every cut, and many of the changes


def archive(file: Path, members: list[tuple[str, bytes]]) -> Path:
    """Write a features file of these members, after its paths."""
    np.savez(file, paths=np.array(["query", "g"]))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as whole, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in members:
            whole.writestr(name, content)
    return file


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def shaped(shape: str, dtype: str = "<f4") -> str:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n"


GOOD = npy(shaped("(2, 1)"), bytes(8))


@pytest.mark.parametrize(
    "members",
    [
        [("features", b"some text")],
        [("features.npy", b"")],
        [("features.npy", b"\x93NUMPY")],
        [("features.npy", npy("print('run')\n"))],
        [("features.npy", npy(shaped("(2, 1)", "|O"), b"cos\nsystem\n(S'true'\ntR."))],
        [("features.npy", npy(shaped("(2, 1)"), bytes(4)))],
        [("features.npy", npy(shaped("(2, 1)"), bytes(12)))],
        [("features.npy", npy(shaped("(-2, -1)"), bytes(8)))],
        [("features.npy", npy(shaped("(1099511627776, 1024)"), bytes(8)))],
        [("features.npy", npy(shaped("(0, 99999999999999999999)"), b""))],
        [("features.npy", GOOD), ("features.npy", GOOD)],
        [("features.npy", GOOD), ("features", b"text")],
        [("num_query", b"1"), ("features.npy", GOOD)],
    ],
)
def test_members_that_are_no_array(tmp_path: Path, members: list[tuple[str, bytes]]) -> None:
    assert is_refused(archive(tmp_path / "f.npz", members))


def test_a_member_that_nobody_asks_for_does_not_matter(tmp_path: Path) -> None:
    file = archive(tmp_path / "f.npz", [("features.npy", GOOD), ("notes.txt", b"mine")])
    assert load_features(file).features.shape == (2, 1)


def test_what_would_not_fit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros pack a thousandfold: what counts is what they unpack to."""
    file = tmp_path / "f.npz"
    np.savez_compressed(file, features=np.zeros((2, 1 << 20)), paths=np.array(["query", "g"]))
    assert file.stat().st_size < 1 << 16
    monkeypatch.setattr("murank.files.npz.available_bytes", lambda: 16 << 20)
    with pytest.raises(InputError, match="16 MiB"):
        load_features(file)
    monkeypatch.setattr("murank.files.npz.available_bytes", lambda: 17 << 20)
    load_features(file)


def test_encrypted(tmp_path: Path) -> None:
    file = archive(tmp_path / "f.npz", [("features.npy", GOOD)])
    content = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = content.rfind(mark)
        content[place + offset] |= 1
    file.write_bytes(bytes(content))
    assert is_refused(file)


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.npz")
    assert is_refused(tmp_path / "f.npz")
    assert is_refused(Path("/dev/zero"))


def mapped_file(tmp_path: Path, array: NDArray[Any], **others: Any) -> Path:
    file = tmp_path / "f.npz"
    np.savez(file, features=array, **others)
    return file


@pytest.mark.parametrize("dtype", ["<f4", "<f2", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_large_array_stays_in_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, order: Any
) -> None:
    monkeypatch.setattr(_npz, "MAPPED_FROM", 1000)
    array = np.asarray(np.random.default_rng(0).random((70, 9)), dtype, order=order)
    file = mapped_file(tmp_path, array, pids=np.arange(70))
    found: dict[str, Any] = _npz.read_npz(file, ("features", "pids"), mapped=("features", "pids"))
    assert isinstance(found["features"].base, mmap.mmap)
    assert not isinstance(found["pids"].base, mmap.mmap)  # small
    assert found["features"].dtype == array.dtype
    np.testing.assert_array_equal(found["features"], array)
    let_go(found["features"])
    np.testing.assert_array_equal(found["features"][5:], array[5:])
    file.unlink()
    found["features"][0] = 1  # of this process alone
    np.testing.assert_array_equal(found["features"][1:], array[1:])


def test_what_cannot_stay_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_npz, "MAPPED_FROM", 1000)
    array = np.zeros((70, 9))
    file = tmp_path / "f.npz"
    np.savez_compressed(file, features=array)
    found = _npz.read_npz(file, ("features",), mapped=("features",))
    assert not isinstance(found["features"].base, mmap.mmap)
    np.testing.assert_array_equal(found["features"], array)


def test_damage_is_seen_in_what_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in what is read: no changed byte of the array passes."""
    monkeypatch.setattr(_npz, "MAPPED_FROM", 1000)
    file = mapped_file(tmp_path, np.ones((70, 9)))
    whole = file.read_bytes()
    for place in (*range(0, 200, 3), *range(len(whole) // 2, len(whole) // 2 + 9)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        refused = contextlib.suppress(InputError) if place < len(whole) // 2 else None
        with refused or pytest.raises(InputError, match="features"):
            found = _npz.read_npz(file, ("features",), mapped=("features",))
            np.testing.assert_array_equal(found["features"], np.ones((70, 9)))  # no one read it
