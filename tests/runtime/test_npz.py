from pathlib import Path

import numpy as np
import pytest

from murank import InputError, load_features


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
    with pytest.raises(InputError, match=r"not an \.npz archive"):
        load_features(file)


def test_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros(3))
    with pytest.raises(InputError, match="single array"):
        load_features(tmp_path / "f.npy")


def test_missing_key_names_those_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", feats=np.zeros(3), paths=np.array(["a"]))
    with pytest.raises(InputError, match=r"lacks features; it holds: feats, paths"):
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
