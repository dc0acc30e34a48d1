import contextlib
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from engine_folder import edit_manifest, make_engine
from hypothesis import given
from hypothesis import strategies as st

from murank import InputError
from murank.folder.manifest import Manifest, engine_sha256, manifest_bytes, read_manifest
from murank.folder.manifest_fields import is_clean_name


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    make_engine(tmp_path / "engine")
    return tmp_path / "engine"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest = make_engine(tmp_path / "engine")
    assert read_manifest(tmp_path / "engine") == manifest
    assert read_manifest(str(tmp_path / "engine")).to_json() == manifest.to_json()


def test_bytes_are_the_same_each_time_and_in_declared_order(engine: Path) -> None:
    raw = (engine / "manifest.json").read_bytes()
    assert manifest_bytes(read_manifest(engine)) == raw
    assert raw.startswith(b'{\n  "schema_version": 1,\n  "murank_version": "0.1.0",\n')
    assert raw.endswith(b"\n}\n")
    assert list(json.loads(raw)) == [
        "schema_version", "murank_version", "precision", "sources", "encoder", "scorer",
        "calibration", "golden", "parity", "files",
    ]  # fmt: skip


def test_an_encoder_alone_or_a_scorer_alone_is_an_engine(engine: Path) -> None:
    manifest = read_manifest(engine)
    for part in ("encoder", "scorer"):
        change: dict[str, Any] = {part: None, "golden": None, "parity": None}
        alone = replace(manifest, **change)
        (engine / "manifest.json").write_bytes(manifest_bytes(alone))
        assert read_manifest(engine) == alone
    with pytest.raises(InputError, match="neither an encoder nor a scorer"):
        replace(manifest, encoder=None, scorer=None)


def test_the_engine_is_known_by_its_manifest(engine: Path) -> None:
    before = engine_sha256(engine)
    edit_manifest(engine, lambda data: data.update(murank_version="0.1.1"))
    assert len(before) == 64
    assert engine_sha256(engine) != before


def test_sizes_of_what_scoring_keeps(engine: Path) -> None:
    manifest = read_manifest(engine)
    assert manifest.scorer is not None
    assert manifest.scorer.shapes.kv_values == 2 * 4 * 2 * 16 * (235 + 52)
    assert manifest.scorer.shapes.vision_values == 50 * 64
    assert manifest.arithmetic.item_bytes == 2
    assert replace(manifest, precision="int8").arithmetic.item_bytes == 4
    with pytest.raises(FrozenInstanceError):
        manifest.precision = "int8"  # type: ignore[misc]


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set the value at a dotted path; `...` takes it away."""

    def edit(data: dict[str, Any]) -> None:
        *parents, key = path.split(".")
        for parent in parents:
            data = data[parent]
        data[key] = value
        if value is ...:
            del data[key]

    return edit


HASH = "a sha256 (64 lower-case hexadecimal digits)"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("scorer.shapes.layers", "x", "scorer.shapes.layers must be a whole number, got 'x'"),
        ("scorer.shapes.layers", 1.0, "scorer.shapes.layers must be a whole number, got 1.0"),
        ("scorer.shapes.layers", True, "scorer.shapes.layers must be a whole number, got True"),
        ("scorer.shapes.layers", 0, "scorer.shapes.layers must be at least 1, got 0"),
        ("scorer.shapes.layers", 1 << 70, "scorer.shapes.layers must be a whole number of 64 bits"),
        ("scorer.shapes.static_tokens", -1, "scorer.shapes.static_tokens must be at least 0"),
        ("scorer.shapes", [], "scorer.shapes must be an object, got []"),
        ("scorer.shapes.layers", ..., "scorer.shapes lacks the key layers"),
        ("scorer.shapes.rows", 3, "scorer.shapes has an unknown key 'rows'"),
        ("scorer.tau", 0, "scorer.tau must be above 0, got 0"),
        ("scorer.tau", "1", "scorer.tau must be a number, got '1'"),
        ("scorer.tau", 10**400, "scorer.tau must be a number of 64 bits"),
        ("scorer.layout", "suffix", "scorer.layout must be one of paper, prefix_first"),
        ("scorer.layout", [], "scorer.layout must be one of paper, prefix_first, got []"),
        ("scorer.mean", [1, 2], "scorer.mean must be a list of 3, got [1, 2]"),
        ("scorer.mean", [1, 2, None], "scorer.mean[2] must be a number, got None"),
        ("scorer.std", [1, 0, 1], "scorer.std must be above 0 in each channel"),
        ("scorer.answer_ids.yes", None, "scorer.answer_ids.yes must be a whole number, got None"),
        ("scorer.template.rules", "none", "scorer.template: rules must be a list of texts"),
        ("scorer.template.rules", [], "scorer.template_sha256 is not the hash of scorer.template"),
        ("scorer.template_sha256", "A" * 64, f"scorer.template_sha256 must be {HASH}"),
        ("scorer.preprocessing.width", "w", "scorer.preprocessing: "),
        ("scorer.preprocessing.depth", 3, "scorer.preprocessing: "),
        ("scorer.preprocessing", None, "scorer.preprocessing must be an object, got None"),
        ("scorer.prompt", "prompt.pth", "scorer.prompt must be the name of a .safetensors file"),
        ("scorer.vision", "onnx/vision.ort", "scorer.vision must be the name of an .onnx file"),
        ("scorer.vision", "other.onnx", "scorer.vision names other.onnx, which is not in files"),
        ("golden", "other.safetensors", "golden names other.safetensors, which is not in files"),
        ("parity", "other.json", "parity names other.json, which is not in files"),
        ("encoder", 3, "encoder must be an object, got 3"),
        ("encoder.dim", None, "encoder.dim must be a whole number, got None"),
        ("precision", "fp64", "precision must be one of fp32, fp16, bf16, w8, int8, w8a16"),
        ("sources.adapter.kind", "lora", "sources.adapter.kind must be one of peft, muse"),
        ("sources.mllm.name", "", "sources.mllm.name must be a printable text, got ''"),
        ("sources.mllm.name", "\x1b[2J", r"sources.mllm.name must be a printable text, got '\x1b"),
        ("calibration", [], "calibration must be an object, got []"),
        ("files", [], "files must be an object, got []"),
        ("files", {"a": {"sha256": "0", "size": 1}}, f"files['a'].sha256 must be {HASH}"),
        ("files", {"a": {"sha256": "0" * 64}}, "files['a'] lacks the key size"),
        ("schema_version", 0, "schema_version must be 1, got 0"),
        ("schema_version", "2", "schema_version must be a whole number, got '2'"),
        ("schema_version", ..., "the top level lacks the key schema_version"),
        ("notes", "hi", "the top level has an unknown key 'notes'"),
    ],
)
def test_wrong_values_are_named(engine: Path, path: str, value: Any, message: str) -> None:
    edit_manifest(engine, put(path, value))
    with pytest.raises(InputError) as caught:
        read_manifest(engine)
    text = str(caught.value)
    assert text.startswith(f"{engine / 'manifest.json'}: {message}")
    assert text.endswith("; copy the engine's folder again, or export it again")
    assert text.isprintable()


def bounded() -> list[tuple[str, Any, Any]]:
    """Dotted path, the largest value that is read, and one that is not."""
    shapes = {
        "layers": 512, "kv_heads": 1024, "head_dim": 1 << 16, "hidden": 1 << 16, "levels": 64,
        "static_tokens": 1 << 17, "prefill_tokens": 1 << 17, "suffix_tokens": 1 << 17,
    }  # fmt: skip
    rows: list[tuple[str, Any, Any]] = [
        (f"scorer.shapes.{key}", most, most + 1) for key, most in shapes.items()
    ]
    rows += [
        ("scorer.answer_ids.no", 1 << 24, (1 << 24) + 1),
        ("scorer.max_pairs", 4096, 4097),
        ("scorer.tau", 1e6, 1.1e6),
        ("scorer.tau", 1e-6, 1e-7),
        ("encoder.dim", 1 << 16, (1 << 16) + 1),
        ("encoder.preprocessing.height", 4096, 4097),
        ("sources.encoder.name", "x" * 1024, "x" * 1025),
    ]
    return rows + [(path, most, 2147483648) for path, most, _ in rows if isinstance(most, int)]


@pytest.mark.parametrize(("path", "most", "beyond"), bounded())
def test_sizes_have_bounds(engine: Path, path: str, most: Any, beyond: Any) -> None:
    edit_manifest(engine, put(path, most))
    read_manifest(engine)
    edit_manifest(engine, put(path, beyond))
    with pytest.raises(InputError, match=path.rpartition(".")[2]):
        read_manifest(engine)


def test_sizes_that_do_not_fit_each_other(engine: Path) -> None:
    edit_manifest(engine, put("scorer.shapes.vision_tokens", 1 << 17))
    with pytest.raises(InputError, match="prefill_tokens"):
        read_manifest(engine)
    edit_manifest(engine, put("scorer.shapes.vision_tokens", 50))
    for key, value in (("layers", 512), ("kv_heads", 1024), ("head_dim", 1 << 16)):
        edit_manifest(engine, put(f"scorer.shapes.{key}", value))
    with pytest.raises(InputError, match="kv_values"):
        read_manifest(engine)


def test_files_have_bounds(engine: Path) -> None:
    entry = {"sha256": "0" * 64, "size": 1 << 43}
    edit_manifest(engine, put("files.a", entry))
    assert read_manifest(engine).files["a"].size == 1 << 43
    edit_manifest(engine, put("files.a", {**entry, "size": (1 << 43) + 1}))
    with pytest.raises(InputError, match=r"files\['a'\].size"):
        read_manifest(engine)
    edit_manifest(engine, lambda data: data["files"].update({f"f{i}": entry for i in range(5000)}))
    with pytest.raises(InputError, match="files"):
        read_manifest(engine)


@pytest.mark.parametrize("depth", [50, 500, 100_000])
def test_nesting_is_bounded(engine: Path, depth: int) -> None:
    content = b'{"files":' + b"[" * depth + b"]" * depth + b"}"
    (engine / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_manifest(engine)


UNCLEAN = [
    "", ".", "..", "../x", "a/../b", "/etc/passwd", "a//b", "a/", "./a", "a\\b", "C:/a", "C:a",
    "a\0", "a\n", " a", ".hidden", "a/.b", "*/_ORT_MEM_ADDR_/*", "é", "~/a", "-a",
]  # fmt: skip


@pytest.mark.parametrize("name", [*UNCLEAN, "manifest.json"])
def test_names_that_could_lead_elsewhere(engine: Path, name: str) -> None:
    edit_manifest(engine, lambda data: data["files"].update({name: {"sha256": "0", "size": 1}}))
    with pytest.raises(InputError, match="a key of files must be a path inside the folder"):
        read_manifest(engine)


@given(st.text(st.sampled_from("a.-/\\\0:"), max_size=8))
def test_clean_names_stay_inside(name: str) -> None:
    if is_clean_name(name):
        parts = Path(name).parts
        assert "/".join(parts) == name
        assert not {"/", ".", ".."}.intersection(parts)
        assert not set(name) & set("\\\0:")


@pytest.mark.parametrize("version", [2, 10**30])
def test_a_newer_schema_asks_for_an_upgrade(engine: Path, version: int) -> None:
    edit_manifest(engine, lambda data: data.update(schema_version=version, more=1))
    with pytest.raises(InputError, match=r"made by a newer murank .*; upgrade murank$"):
        read_manifest(engine)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"PK\x03\x04", "is not JSON"),
        (b"\xff{}", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b'{"schema_version": NaN}', "NaN is no number"),
        (b'{"schema_version": -Infinity}', "-Infinity is no number"),
        (b'{"schema_version": 1e999}', "is not JSON"),
        (b'{"schema_version": "\\ud800"}', "is not JSON"),
        (b'{"schema_version": 1, "schema_version": 1}', "schema_version"),
        (b"[1]", r"the top level must be an object, got \[1\]"),
        (b"null", "the top level must be an object, got None"),
        (b" " * (4 << 20) + b"{}", "is over 4 MiB"),
    ],
)
def test_not_a_manifest(engine: Path, content: bytes, message: str) -> None:
    (engine / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(engine)
    assert str(caught.value).startswith(str(engine / "manifest.json"))


def test_no_manifest(tmp_path: Path) -> None:
    for function in (read_manifest, engine_sha256):
        with pytest.raises(InputError, match=r"manifest\.json"):
            function(tmp_path)
        with pytest.raises(InputError, match="no such folder; name the folder of an engine"):
            function(tmp_path / "none")
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(InputError, match="is not a regular file"):
        read_manifest(tmp_path)


def test_a_symlinked_manifest(engine: Path) -> None:
    (engine / "manifest.json").rename(engine / "real.json")
    (engine / "manifest.json").symlink_to(engine / "real.json")
    with pytest.raises(InputError, match="is a symlink"):
        read_manifest(engine)


def test_nothing_is_written_that_could_not_be_read(engine: Path) -> None:
    manifest = read_manifest(engine)
    changes: list[dict[str, Any]] = [
        {"murank_version": ""},
        {"precision": "fp64"},
        {"files": {**manifest.files, "../x": manifest.files["parity.json"]}},
    ]
    for change in changes:
        changed = replace(manifest, **change)
        with pytest.raises(InputError):
            manifest_bytes(changed)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> str:
    return json.dumps(make_engine(tmp_path_factory.mktemp("m") / "engine").to_json())


@given(value=json_values, choose=st.randoms(use_true_random=False))
def test_any_value_anywhere_is_read_or_refused(value: Any, choose: Any, template: str) -> None:
    data = inner = json.loads(template)
    key = choose.choice(list(inner))
    while inner[key] and isinstance(inner[key], dict) and choose.random() < 0.7:
        inner = inner[key]
        key = choose.choice(list(inner))
    inner[key] = value
    with contextlib.suppress(InputError):
        assert Manifest.from_json(data).to_json() == data
