import json
from dataclasses import replace
from pathlib import Path

import pytest
from engine_folder import PARITY, make_engine, relist

from murank.cli import main
from murank.folder.manifest import engine_sha256, manifest_bytes


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    make_engine(tmp_path / "engine")
    return tmp_path / "engine"


def inspect(engine: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["inspect", str(engine), *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_for_a_person(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = inspect(engine, capsys)
    for text in (
        f"{engine}: fp16, of murank 0.1.0\nsha256 {engine_sha256(engine)}",
        "tiny-vl (qwen2_vl) 111111111111",
        "street (peft) 222222222222",
        "osnet 333333333333",
        "512 values",
        "256x128 (height x width), bicubic, cropped after the shorter side became 256",
        "280x140 (height x width), bicubic; 50 tokens",
        "prefix_first, template ",
        "235 static, 52 prefill a query, 59 suffix a pair",
        "4 layers, hidden 64, 2 K/V heads of 16",
        "tau 1.5, at most 64 pairs a run",
        f"{2 * 4 * 2 * 16 * 287 * 2 / 1024:.1f} KiB of K/V a query",
        f"{50 * 64 * 2 / 1024:.1f} KiB of vision tokens an image",
        "  scorer  pairs 64, max_abs_logit 0.000149, max_abs_mu 8.568e-08, spearman 0.9999, "
        "same_first yes\n",
        "onnx/decoder.data",
        "--verify",
    ):
        assert text in out
    assert "PyTorch" not in out
    assert max(map(len, out.replace(str(engine), "").splitlines())) <= 100


def test_for_a_script(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(inspect(engine, capsys, "--json"))
    assert found["manifest"] == json.loads((engine / "manifest.json").read_bytes())
    assert found["sha256"] == engine_sha256(engine)
    assert found["parity"] == PARITY
    assert found["bytes"] == {
        "files": sum(
            path.stat().st_size for path in engine.rglob("*.*") if path.stem != "manifest"
        ),
        "kv_a_query": 2 * 4 * 2 * 16 * 287 * 2,
        "vision_tokens_an_image": 50 * 64 * 2,
    }


def test_an_encoder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = make_engine(tmp_path / "e")
    alone = replace(manifest, scorer=None, parity=None, calibration=None)
    (tmp_path / "e" / "manifest.json").write_bytes(manifest_bytes(alone))
    out = inspect(tmp_path / "e", capsys)
    assert "encoder" in out
    for title in ("scorer", "parity\n", "calibration"):
        assert title not in out
    found = json.loads(inspect(tmp_path / "e", capsys, "--json"))
    assert found["parity"] == {}
    assert list(found["bytes"]) == ["files"]


def test_structure_and_contents_are_checked(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = engine / "onnx/decoder.data"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for gone in (False, True):
        if gone:
            path.unlink()
        assert main(["inspect", str(engine), "--quiet"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"murank: error: {path}: ")


def test_options_of_the_replay(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--providers", "cpu"], ["--threads", "1"]):
        assert main(["inspect", str(engine), *options]) == 2
        assert f"{options[0]} needs --verify" in capsys.readouterr().err
    assert main(["inspect", str(engine), "--sha256", "0" * 64]) == 2
    assert "sha256" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[1]", "no", '{"a": {}, "a": {}}', '{"scorer": 1}'])
def test_bad_parity(engine: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (engine / "parity.json").write_text(content)
    relist(engine, "parity.json")
    assert main(["inspect", str(engine)]) == 2
    assert "parity.json: it " in capsys.readouterr().err


def test_terminals_are_not_commanded(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (engine / "parity.json").write_text(json.dumps({"\x1b[2J": {"\x1b[3J": 1}}))
    relist(engine, "parity.json")
    assert "\x1b" not in inspect(engine, capsys)


def test_parity_that_is_unknown_is_left_out(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parity = {"scorer": {"pairs": 2, "spearman": None, "same_first": False}}
    (engine / "parity.json").write_text(json.dumps(parity))
    relist(engine, "parity.json")
    assert "  scorer  pairs 2, same_first no\n" in inspect(engine, capsys)
