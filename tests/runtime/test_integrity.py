import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from engine_folder import FILES, edit_manifest, make_engine, model, outside, relist, weight

from murank import InputError
from murank.folder.integrity import check_engine, hash_files
from murank.folder.manifest import read_manifest

AGAIN = "; copy the engine's folder again, or export it again"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    make_engine(tmp_path / "engine")
    return tmp_path / "engine"


def test_an_engine_as_exported(engine: Path) -> None:
    aside = engine / ".murank-0123456789abcdef-manifest.json"
    aside.write_bytes(b"what a calibration writes")
    assert check_engine(engine) == read_manifest(engine)
    assert check_engine(str(engine), hashes=False) == read_manifest(engine)


def test_the_folder_itself_may_be_a_symlink(engine: Path) -> None:
    link = engine.with_name("link")
    link.symlink_to(engine)
    assert check_engine(link) == read_manifest(engine)


def test_progress_ends_at_the_total(engine: Path) -> None:
    (engine / "onnx/decoder.data").write_bytes(bytes(3 << 20))
    relist(engine, "onnx/decoder.data")
    calls: list[tuple[str, int, int]] = []
    check_engine(engine, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("MiB hashed", 3, 3)
    assert calls == sorted(calls)
    calls.clear()
    check_engine(engine, hashes=False, progress=lambda *call: calls.append(call))
    assert calls == []


def change(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def cut(content: bytes) -> bytes:
    return content[:-1]


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_checked(engine: Path, name: str) -> None:
    path = engine / name
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    assert_refused(engine, path, "its content differs from its sha256 in manifest.json")
    path.write_bytes(cut(whole))
    assert_refused(engine, path, f"it has {len(whole) - 1} bytes instead of {len(whole)}")
    path.write_bytes(whole + b"\0")
    assert_refused(engine, path, f"it has {len(whole) + 1} bytes instead of {len(whole)}")
    path.unlink()
    assert_refused(engine, path, "it is missing")
    path.mkdir()
    assert_refused(engine, path, "it is not a regular file")


def test_without_hashes_contents_are_taken_as_they_are(engine: Path) -> None:
    path = engine / "onnx/decoder.data"
    path.write_bytes(change(path.read_bytes()))
    check_engine(engine, hashes=False)
    with pytest.raises(InputError, match="sha256"):
        check_engine(engine)


def assert_refused(engine: Path, path: Path, what: str) -> None:
    with pytest.raises(InputError) as caught:
        check_engine(engine)
    assert str(caught.value) == f"{path}: {what}{AGAIN}"


def test_symlinks_below_the_folder(engine: Path) -> None:
    for name in ("onnx/decoder.data", "onnx"):  # a file, then a folder
        path = engine / name
        path.rename(engine.parent / path.name)
        path.symlink_to(engine.parent / path.name)
        assert_refused(engine, path, "it is a symlink, which is not followed")
        path.unlink()
        (engine.parent / path.name).rename(path)
    check_engine(engine)


def test_a_fifo_is_not_waited_for(engine: Path) -> None:
    (engine / "prompt.safetensors").unlink()
    os.mkfifo(engine / "prompt.safetensors")
    assert_refused(engine, engine / "prompt.safetensors", "it is not a regular file")


def test_a_file_where_a_folder_should_be(engine: Path) -> None:
    edit_manifest(
        engine,
        lambda data: data["files"].update({"parity.json/x": {"sha256": "0" * 64, "size": 1}}),
    )
    assert_refused(engine, engine / "parity.json", "it is not a folder")


@pytest.mark.parametrize("absolute", [False, True])
def test_listed_outside(engine: Path, absolute: bool) -> None:
    outside_file = engine.parent / "x"
    outside_file.write_bytes(b"x")
    relist(engine, str(outside_file) if absolute else "../x")
    with pytest.raises(InputError, match="a key of files must be a path inside the folder"):
        check_engine(engine)


def add_file(engine: Path) -> str:
    (engine / "onnx/extra.onnx").write_bytes(b"")
    return "'onnx/extra.onnx'"


def add_folder(engine: Path) -> str:
    (engine / "other").mkdir()
    (engine / "other/not entered").write_bytes(b"")
    return "'other'"


def add_symlink(engine: Path) -> str:
    (engine / "onnx/here").symlink_to(engine)
    return "'onnx/here'"


def add_aside_of_another_kind(engine: Path) -> str:
    (engine / ".murank-0123456789abcdef-x").symlink_to(engine.parent)
    return "'.murank-0123456789abcdef-x'"


def add_aside_elsewhere(engine: Path) -> str:
    (engine / "onnx/.murank-0123456789abcdef-x").write_bytes(b"")
    return "'onnx/.murank-0123456789abcdef-x'"


def add_escape(engine: Path) -> str:
    (engine / "\x1b[2J").write_bytes(b"")
    return r"'\x1b[2J'"


@pytest.mark.parametrize(
    "add",
    [add_file, add_folder, add_symlink, add_aside_of_another_kind, add_aside_elsewhere, add_escape],
)
def test_nothing_else_may_be_there(engine: Path, add: Callable[[Path], str]) -> None:
    name = add(engine)
    assert_refused(engine, engine, f"it holds what manifest.json does not list: {name}")


def test_a_few_of_many_are_named(engine: Path) -> None:
    for number in range(20):
        (engine / f"extra{number}").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        check_engine(engine)
    assert str(caught.value).count("'extra") == 5
    assert ", ...; " in str(caught.value)


@pytest.mark.parametrize(
    ("location", "what"),
    [
        ("other.data", "which manifest.json does not list"),
        ("onnx/decoder.data", "which manifest.json does not list"),
        ("decoder.data/x", "which manifest.json does not list"),
        ("../prompt.safetensors", "which may lie outside the folder"),
        ("../../../secret", "which may lie outside the folder"),
        ("/etc/hostname", "which may lie outside the folder"),
        ("./decoder.data", "which may lie outside the folder"),
        ("..\\x", "which may lie outside the folder"),
        ("*/_ORT_MEM_ADDR_/*", "which may lie outside the folder"),
        ("", "which may lie outside the folder"),
    ],
)
@pytest.mark.parametrize("hashes", [True, False])
def test_external_data(engine: Path, location: str, what: str, hashes: bool) -> None:
    path = engine / "onnx/decoder.onnx"
    onnx.save(model(outside(weight(), location)), path)
    relist(engine, "onnx/decoder.onnx")
    with pytest.raises(InputError) as caught:
        check_engine(engine, hashes=hashes)
    assert str(caught.value) == f"{path}: it refers to external data in {location!r}, {what}{AGAIN}"


def test_an_onnx_file_that_no_part_names_is_looked_into(engine: Path) -> None:
    onnx.save(model(outside(weight(), "hidden.data")), engine / "extra.onnx")
    relist(engine, "extra.onnx")
    with pytest.raises(InputError, match=r"extra\.onnx"):
        check_engine(engine)


def test_a_damaged_onnx_file_with_its_hash(engine: Path) -> None:
    path = engine / "onnx/encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    relist(engine, "onnx/encoder.onnx")
    with pytest.raises(InputError, match=r"encoder\.onnx"):
        check_engine(engine)


def test_hash_files(engine: Path) -> None:
    listed = read_manifest(engine).files
    assert hash_files(engine, reversed(FILES)) == listed
    assert list(hash_files(engine, reversed(FILES))) == list(reversed(FILES))
    with pytest.raises(InputError, match="is missing"):
        hash_files(engine, ["onnx/none.onnx"])
    with pytest.raises(InputError, match="is not a regular file"):
        hash_files(engine, ["onnx"])
