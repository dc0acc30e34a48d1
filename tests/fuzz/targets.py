"""What murank reads from files of others: seeds, how they are changed, and what reads them."""

import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import mutate
from fuzz.more_targets import more_targets
from fuzz.mutate import BYTES
from fuzz.target import JSON, MINIATURE, Target, archive
from PIL import Image

from murank import Ranking, load_features, load_ranking, write_ranking
from murank.bench.report_files import load_report
from murank.datasets import list_images
from murank.datasets.csv_list import read_csv_list
from murank.engine.decoder import _load_prompt
from murank.engine.disk_cache import DiskCache
from murank.engine.engine import Engine
from murank.folder.contents import EngineFiles
from murank.folder.integrity import check_engine
from murank.folder.manifest import engine_sha256, read_manifest
from murank.folder.onnx_references import graph_facts
from murank.images import load_image
from murank.jobs.stage import read_stage, stage_writer
from murank.jobs.workspace import JobFolder
from murank.journal import Journal
from murank.journal.segments import SegmentRecord
from murank.pairs.labelled import load_pairs
from murank.prompt import load_template
from murank.rerank.mu import load_mu
from murank.rerank.parquet_ranking import FIRST_PART, GALLERY_FILE

ENGINE = MINIATURE / "engine"


def targets() -> dict[str, Target]:
    """All of them, by name."""
    made = [
        *_images(),
        *_arrays(),
        *_texts(),
        *_engines(),
        *_jobs(),
        *_caches(),
        *_adapters(),
        *more_targets(),
    ]
    return {target.name: target for target in made}


def _images() -> list[Target]:
    chance = np.random.default_rng(0)
    colours = Image.fromarray(chance.integers(0, 256, (24, 12, 3), np.uint8))

    def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    deep = Image.fromarray(chance.integers(0, 4000, (16, 8), np.uint16))
    pngs = [encoded(image, "PNG") for image in (colours, colours.convert("P"), deep)]
    jpegs = [encoded(colours, "JPEG"), encoded(colours, "JPEG", progressive=True)]
    others = [encoded(colours, kind) for kind in ("BMP", "WEBP", "PPM", "GIF", "TIFF")]
    others.append(b"P3\n# a remark\n2 2\n255\n" + b"1 2 3 " * 4)

    def read(file: Path) -> object:
        return np.asarray(load_image(file)).sum()

    png = (mutate.png_chunks,) * 4 + BYTES
    jpeg = (mutate.jpeg_markers,) * 4 + BYTES
    return [
        Target("png", pngs, png, read, "a.png", 300),
        Target("jpeg", jpegs, jpeg, read, "a.jpg", 300),
        Target("other images", others, (mutate.text_numbers, *BYTES), read, "a.ppm", 300),
    ]


def _arrays() -> list[Target]:
    paths = np.array(["query/a", "query/b", "gallery/a", "gallery/b", "gallery/c"])
    ids = np.array([1, 2, 1, 2, 3])
    rows = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    features = archive(features=rows, paths=paths, pids=ids, camids=ids, num_query=np.array(2))
    places = np.array([[0, 1], [1, 2]])
    mu = archive(probs=np.array([[0.1, 0.2], [0.3, 0.4]], np.float32), gallery_indices=places)
    ranking = archive(
        indices=places, distances=rows[:2, :2], query_paths=paths[:2], gallery_paths=paths[2:],
        q_pids=ids[:2], g_pids=ids[2:], q_camids=ids[:2], g_camids=ids[2:],
    )  # fmt: skip
    how = (mutate.zip_members,) * 4 + BYTES
    return [
        Target("features", [features], how, load_features, "f.npz", 250),
        Target("mu", [mu], how, load_mu, "mu.npz", 150),
        Target("ranking", [ranking], how, load_ranking, "ranking.npz", 150),
        Target(
            "parquet list",
            [_parquet(path=["a", "b"], pid=[1, 2], camid=[0, 1])],
            BYTES,
            list_images,
            "l.parquet",
            60,
        ),
        Target(
            "parquet features",
            [_parquet(path=paths.tolist(), feature=list(rows), pid=ids)],
            BYTES,
            load_features,
            "f.parquet",
            60,
        ),
        _parquet_ranking(),
    ]


def _parquet_ranking() -> Target:
    paths = np.array(["a", "b", "c"])
    rows = np.array([[0, 1], [1, 2]])
    made = Ranking(rows, rows.astype(np.float32), paths[:2], paths)
    with tempfile.TemporaryDirectory() as folder:
        write_ranking(folder, made, {}, format="parquet")
        seed, gallery = ((Path(folder) / name).read_bytes() for name in (FIRST_PART, GALLERY_FILE))

    def prepare(place: Path) -> None:
        (place / GALLERY_FILE).write_bytes(gallery)

    return Target("parquet ranking", [seed], BYTES, load_ranking, FIRST_PART, 60, prepare)


def _parquet(**columns: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def _texts() -> list[Target]:
    pairs = json.dumps([{"query": "a.png", "candidate": "b.png", "match": "Yes"}] * 3).encode()
    csv = b'path,pid,camid\na.png,1,1\nb.png,2,2\n"c,d.png",3,1\n'
    from bench_fakes import report

    told = json.dumps(report(None).to_json()).encode()
    prompts = [(MINIATURE / name).read_bytes() for name in ("prompt.json", "bare_prompt.json")]
    return [
        Target("pairs", [pairs], JSON, load_pairs, "pairs.json", 150),
        Target("csv", [csv], (mutate.text_numbers, *BYTES), read_csv_list, "list.csv", 250),
        Target("prompt", prompts, JSON, load_template, "prompt.json", 150),
        Target("bench report", [told], JSON, load_report, "report.json", 150),
    ]


def _around(folder: Path) -> None:
    shutil.copytree(ENGINE, folder, dirs_exist_ok=True)


def _engines() -> list[Target]:
    shapes = read_manifest(ENGINE).exported_scorer
    assert shapes is not None
    graphs = [(ENGINE / "onnx" / f"{one}.onnx").read_bytes() for one in ("encoder", "decoder")]
    tensors = (mutate.json_header,) * 4 + BYTES

    def check(file: Path) -> object:
        return check_engine(file.parent, hashes=False)

    def load(file: Path) -> object:
        folder = file.parent
        engine = Engine.from_pretrained(folder, providers="cpu", sha256=engine_sha256(folder))
        one = np.zeros((64, 32, 3), np.uint8)
        return engine.embed([one]), engine.mu_many([one], [[one]])

    def prompt(file: Path) -> object:
        return _load_prompt(EngineFiles(file.parent), file.name, shapes.shapes)

    manifest = [(ENGINE / "manifest.json").read_bytes()]
    return [
        Target("manifest", manifest, JSON, check, "manifest.json", 250, _around),
        Target("engine", manifest, JSON, load, "manifest.json", 25, _around),
        Target("onnx", graphs, BYTES, graph_facts, "a.onnx", 150),
        Target(
            "prompt tensors", [(ENGINE / "prompt.safetensors").read_bytes()], tensors,
            prompt, "prompt.safetensors", 150,
        ),
    ]  # fmt: skip


def _jobs() -> list[Target]:
    file = io.BytesIO()
    stage_writer({"features": np.ones((3, 2), np.float32)}, {"fingerprint": "0" * 64})(file)
    job = {"top_k": 3, "engine": "0" * 64}
    told = json.dumps({"schema_version": 1, "job": job}).encode()

    def enter(told: Path) -> object:
        with JobFolder(told.parents[1], job, overwrite=False, writes=["mu.npz"]) as folder:
            return folder.record("mu.npz")

    def read(segment: Path) -> object:
        journal = Journal(segment.parent)
        return len(journal.mu("0" * 64, "given"))

    how = (mutate.zip_members,) * 4 + BYTES
    return [
        Target(
            "journal", [_segment(sealed=False), _segment(sealed=True)], BYTES, read, "a.seg", 150
        ),
        Target("stage", [file.getvalue()], how, read_stage, "mu.npz", 150),
        Target("job", [told], JSON, enter, ".murank-batch/job.json", 100),
    ]


def _segment(*, sealed: bool) -> bytes:
    """A journal's file; sealed: what is inside was changed before it got its checksum."""
    facts = {
        "engine": "0" * 64, "device": "CPU", "providers": {"decoder": ["CPU"]}, "unusable": ["why"],
        "order": "given", "unanswered": [1 << 40 if sealed else 1], "reasons": ["why"],
    }  # fmt: skip
    arrays: dict[str, Any] = {
        "images": np.zeros((2, 32), np.uint8), "pairs": np.array([[0, 1], [1, 0]], np.uint16),
        "mu": np.array([0.5, np.nan], np.float32), "refused": np.zeros((1, 32), np.uint8),
    }  # fmt: skip
    return SegmentRecord("mu", facts, arrays).to_bytes()


def _caches() -> list[Target]:
    part, key = "1" * 64, "2" * 64
    values = np.arange(64, dtype=np.float32).reshape(8, 8)

    def kept(folder: Path) -> None:
        DiskCache(folder, part).put(key, values)

    def read(file: Path) -> object:
        found = DiskCache(file.parents[1], part).get(key, values.shape, values.dtype)
        if found is not None and not np.array_equal(found, values):
            raise AssertionError("tokens that nobody kept")
        return found

    with tempfile.TemporaryDirectory() as folder:
        kept(Path(folder))
        (file,) = (path for path in Path(folder).rglob(key))
        name, content = file.relative_to(folder).as_posix(), file.read_bytes()
    return [Target("cache", [content], BYTES, read, name, 100, kept)]


def _adapters() -> list[Target]:
    try:
        import torch

        from murank_export.adapt.checkpoints import RunFolder
        from murank_export.mllm.adapter import read_adapter
    except ImportError:  # only the runtime is installed
        return []
    folder = MINIATURE / "adapter"
    config, weights = "adapter_config.json", "adapter_model.safetensors"

    def adapter(file: Path) -> object:
        return read_adapter(file.parent)

    def around(case: Path) -> None:
        shutil.copytree(folder, case, dirs_exist_ok=True)

    saved = {
        "step": 2, "seconds": 1.0, "evaluations": [], "best": None,
        "weights": {"a": torch.zeros(2)}, "optimizer": {},
    }  # fmt: skip
    checkpoint = io.BytesIO()
    torch.save(saved, checkpoint)
    training = json.dumps({"deciding": {"lr": 0.1}, "result": None}).encode()

    def resume(file: Path) -> object:
        root = file.parent if file.name == "training.json" else file.parents[1]
        return RunFolder(root).look({"lr": 0.1}, overwrite=False)

    def begun(case: Path) -> None:
        (case / "checkpoint").mkdir()
        (case / "training.json").write_bytes(training)
        (case / "checkpoint" / "latest.pt").write_bytes(checkpoint.getvalue())

    return [
        Target("adapter", [(folder / config).read_bytes()], JSON, adapter, config, 60, around),
        Target(
            "adapter weights", [(folder / weights).read_bytes()],
            (mutate.json_header,) * 4 + BYTES, adapter, weights, 60, around,
        ),
        Target("training", [training], JSON, resume, "training.json", 60, begun),
        Target(
            "checkpoint", [checkpoint.getvalue()], (mutate.zip_members,) * 2 + BYTES, resume,
            "checkpoint/latest.pt", 100, begun,
        ),
    ]  # fmt: skip
