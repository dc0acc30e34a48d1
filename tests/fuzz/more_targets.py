"""Folders of others: data sets, results, reports, checkpoints; and records of plans."""

import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from bench_fakes import report, sample
from finished_job import write_job
from fuzz import mutate
from fuzz.mutate import BYTES
from fuzz.target import JSON, MINIATURE, Target, archive
from miniature_datasets import make_grid, touch

from murank.backends.trt.record import PlanEntry, PlanRecord
from murank.backends.trt.record import PlanPlatform as Gpu
from murank.bench.bench_settings import BenchSettings
from murank.bench.figures import section_of
from murank.bench.report_comparison import compare
from murank.bench.report_files import load_report
from murank.cli import evaluate as _evaluate
from murank.cli.ranked_source import read_ranked
from murank.datasets import load_dataset
from murank.files.json_object import read_json, write_json
from murank.folder.manifest import FileEntry

_LINE = "{0:04d}/{0:04d}_000_0{1}_0303morning_0015_{1}.jpg"


def more_targets() -> list[Target]:
    """All of them."""
    return [*_datasets(), *_results(), *_reports(), *_plans(), *_checkpoints()]


def _datasets() -> list[Target]:
    market = "\n".join(
        f"{folder}/{pid:04d}_c{cam}s1_0000{pid}_00.jpg"
        for folder, cam in (("query", 1), ("bounding_box_test", 2)) for pid in (1, 2, 3)
    ).encode()  # fmt: skip
    listed = "\n".join(f"{_LINE.format(pid, cam)} {pid}" for pid in (0, 1) for cam in (1, 2))

    def named(file: Path) -> object:
        """Make the files that the list names, as far as a file system takes such names."""
        for line in file.read_bytes().split(b"\n")[:200]:
            with contextlib.suppress(OSError, ValueError):
                folder, name = Path(*line.decode(errors="surrogateescape").split("/")[-2:]).parts
                if folder.strip("."):
                    touch(file.parent / folder, [name])
        return [load_dataset(name, file.parent) for name in ("market1501", "dukemtmc")]

    def lists(folder: Path) -> None:
        touch(folder / "test", [_LINE.format(pid, cam) for pid in (0, 1) for cam in (1, 2)])
        (folder / "list_gallery.txt").write_text(listed)

    def grid(folder: Path) -> None:
        make_grid(folder)

    splits = [{
        "query": [[f"probe/{pid:04d}_1_25004_107_32_106_221.jpeg", pid, 0] for pid in (1, 2)],
        "gallery": [f"gallery/{pid:04d}_{2 + pid % 2}_25023_116_1_2_3.jpeg" for pid in (1, 2)],
    }]  # fmt: skip
    text = (mutate.text_numbers, *BYTES)
    return [
        Target("dataset names", [market], text, named, "names.txt", 150),
        Target(
            "dataset lists", [listed.encode()], text,
            lambda file: load_dataset("msmt17", file.parent), "list_query.txt", 150, lists,
        ),
        Target(
            "dataset splits", [json.dumps(splits).encode()], JSON,
            lambda file: load_dataset("grid", file.parents[1]), "underground_reid/splits.json", 100,
            grid,
        ),
    ]  # fmt: skip


def _results() -> list[Target]:
    rows = np.random.default_rng(0).random((2, 3)).astype(np.float32)
    ids = {"q_pids": [1, 2], "g_pids": [1, 2, 3], "q_camids": [0, 0], "g_camids": [1, 1, 1]}
    distances = archive(distmat=rows, **{name: np.array(one) for name, one in ids.items()})
    features = archive(
        features=np.eye(5, dtype=np.float32), paths=np.array([f"query/{n}" for n in range(5)]),
        pids=np.arange(5), camids=np.arange(5), num_query=np.array(2),
    )  # fmt: skip
    mu = archive(probs=rows[:, :2], gallery_indices=np.array([[0, 1], [1, 2]]))
    with tempfile.TemporaryDirectory() as folder:
        told = (write_job(Path(folder), "features.npz", "mu.npz") / "job.json").read_bytes()

    def around(folder: Path) -> None:
        (folder / "features.npz").write_bytes(features)
        (folder / "mu.npz").write_bytes(mu)

    def ranked(file: Path) -> object:
        return read_ranked(_evaluate.parser().parse_args([str(file.parent)]))

    def evaluated(file: Path) -> object:
        with contextlib.redirect_stdout(io.StringIO()):
            return _evaluate.run(_evaluate.parser().parse_args([str(file), "--json"]))

    how = (mutate.zip_members,) * 4 + BYTES
    return [
        Target("finished job", [told], JSON, ranked, "job.json", 150, around),
        Target("distances", [distances], how, evaluated, "d.npz", 150),
    ]  # fmt: skip


def _reports() -> list[Target]:
    measured = report(section_of([sample(0.05 + n / 1e3) for n in range(30)], BenchSettings()))
    told = json.dumps(measured.to_json()).encode()

    def compared(file: Path) -> object:
        other = load_report(file.parent / "other.json")
        return compare(other, load_report(file)), compare(load_report(file), other)

    def other(folder: Path) -> None:
        (folder / "other.json").write_bytes(told)

    return [Target("bench compare", [told], JSON, compared, "report.json", 60, other)]


def _plans() -> list[Target]:
    file = FileEntry(sha256="1" * 64, size=9)
    entry = PlanEntry(
        file=file, flags={"fp16": True}, profiles={"one": {"x": [1, 2]}}, seconds=1.5
    )  # fmt: skip
    gpu = Gpu(
        library="tensorrt", version="10.3.0", compute_capability="8.7", device="Orin", driver="12.6"
    )
    record = PlanRecord(
        engine="2" * 64, target=gpu, plans={"encoder": entry}, extra={"timing.cache": file}
    )

    def read(path: Path) -> object:
        return PlanRecord.from_json(read_json(path), str(path))

    told = [write_json(record.to_json())]
    return [Target("plan record", told, JSON, read, "record.json", 250)]


def _checkpoints() -> list[Target]:
    try:
        from murank_export.mllm.checkpoint import load_checkpoint
    except ImportError:  # only the runtime is installed
        return []
    base = MINIATURE / "base"

    def around(folder: Path) -> None:
        shutil.copytree(base, folder, dirs_exist_ok=True)

    def load(file: Path) -> object:
        import torch

        torch.set_num_threads(1)  # a fork has none of the threads that its parent started
        return load_checkpoint(file.parent).grid(None)

    def warm() -> object:
        import transformers

        return transformers.Qwen2VLForConditionalGeneration, transformers.AutoTokenizer

    config = [(base / "config.json").read_bytes()]
    return [Target("checkpoint config", config, JSON, load, "config.json", 12, around, warm)]
