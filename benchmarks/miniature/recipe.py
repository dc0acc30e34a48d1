"""The miniature, step by step; each step is one folder or file, and done only where it is missing.

Wherever murank has a verb for a step, the step is that verb: what a user would type.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from miniature.encoder import MEAN, RESAMPLE, STD, save_onnx, train_encoder
from miniature.encoder import SIZE as ENCODER_SIZE
from miniature.model import PROMPT, load_base, make_base
from miniature.pool import SIZE, load_pool
from miniature.pretrain import Stages, pretrain

from murank.cli import main
from murank.datasets import list_images
from murank.images import Preprocessing, load_image, to_pixels
from murank.pairs.labelled import Pair, load_pairs, save_pairs
from murank.prompt import Layout
from murank_export.world import TRAINING
from murank_export.world.market import TRAIN, WorldSettings, write_world

POOL_DOMAINS = 300  # broad-0 to broad-299
HELD_DOMAINS = 10  # the next ones, for the curves of the training
ENCODER_STEPS = 1200
BASE_SEED = 0
STAGES = Stages()
LORA = (
    "--adapter-rank", "8", "--adapter-alpha", "16", "--lr", "2e-4", "--min-lr", "2e-6",
    "--warmup", "20", "--jitter", "1", "--pack", "8", "--batch-size", "96", "--steps", "100",
    "--eval-every", "50",
)  # fmt: skip
Say = Callable[[str], None]


@dataclass
class Recipe:
    """One miniature under construction in a folder of its own.

    A seed draws everything but the base: places, people, encoder, mined pairs, LoRA. The base is
    one, beside the seeds' folders, as a pre-trained MLLM is.
    """

    work: Path
    seed: int
    say: Say = print
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def world(self) -> Path:
        """The training domain, drawn."""
        folder = self.work / TRAINING
        if not folder.exists():
            with self._step("world"):
                write_world(folder, training_world(self.seed))
        return folder

    @property
    def encoder(self) -> Path:
        """The Re-ID encoder, trained on the training domain: an ONNX file."""
        file = self.work / "encoder.onnx"
        if not file.exists():
            images = list_images(self.world / TRAIN)
            assert images.pids is not None
            how = Preprocessing(*ENCODER_SIZE, RESAMPLE)
            pixels = np.stack([to_pixels(load_image(path), how) for path in images.paths])
            with self._step("encoder"):
                encoder = train_encoder(
                    pixels, images.pids, steps=ENCODER_STEPS, seed=self.seed, say=self.say
                )
                save_onnx(encoder, file.with_suffix(".unfinished"))
                file.with_suffix(".unfinished").rename(file)
        return file

    @property
    def base(self) -> Path:
        """The MLLM as "pre-trained" on broad domains: a checkpoint folder, float16."""
        folder = self.work.parent / "base"
        if not folder.exists():
            pool = load_pool(self.work.parent / "pool.npz", POOL_DOMAINS + HELD_DOMAINS)
            aside = self.work.parent / "base-unfinished"
            shutil.rmtree(aside, ignore_errors=True)
            with self._step("base"):
                make_base(aside, seed=BASE_SEED)
                checkpoint = load_base(aside)
                checkpoint.model.train()
                pretrain(
                    checkpoint, pool.places(0, POOL_DOMAINS),
                    pool.places(POOL_DOMAINS, HELD_DOMAINS), STAGES, BASE_SEED,
                    kept=self.work.parent / "base-kept" / "state.pt", say=self.say,
                )  # fmt: skip
                checkpoint.model.half().save_pretrained(aside)
                aside.rename(folder)
        return folder

    @property
    def encoder_engine(self) -> Path:
        """An engine of the encoder alone, to mine with."""
        folder = self.work / "encoder-engine"
        if not folder.exists():
            self.murank("export", *self._encoder_options(), "-o", folder)
        return folder

    @property
    def pairs(self) -> Path:
        """Hard pairs of the training people: what the aligned encoder still confuses."""
        return self._mined("pairs", "pairs")

    @property
    def unaligned_pairs(self) -> Path:
        """The same of the encoder's features as they are."""
        return self._mined("unaligned-pairs", "off")

    def _mined(self, name: str, level: str) -> Path:
        folder = self.work / name
        if not folder.exists():
            self.murank(
                "adapt", "mine", "--engine", self.encoder_engine, "--images", self.world / TRAIN,
                "--align-cameras", level, "--k", 4, "--seed", self.seed, "-o", folder,
            )  # fmt: skip
        return folder

    @property
    def random_pairs(self) -> Path:
        """As many pairs of the same people, drawn at random; validated by the same hard pairs."""
        folder = self.work / "random-pairs"
        if not folder.exists():
            aside = folder.with_name("random-pairs-unfinished")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            shutil.copyfile(self.pairs / "val.json", aside / "val.json")
            drawn = random_alike(load_pairs(self.pairs / "train.json"), seed=self.seed)
            save_pairs(aside / "train.json", drawn)
            aside.rename(folder)
        return folder

    def adapter(
        self, name: str = "hard", *, pairs: Path | None = None, prompt: Path = PROMPT,
        layout: Layout = "prefix_first",
    ) -> Path:  # fmt: skip
        """Return a LoRA of the base, trained on pairs (the mined ones)."""
        folder = self.work / f"adapter-{name}"
        if not _is_trained(folder):
            with self._step(f"adapter {name}"):
                self.murank(
                    "adapt", "train", "--mllm", self.base, "--pairs", pairs or self.pairs,
                    "--prompt", prompt, "--layout", layout, "--image-size", f"{SIZE[0]}x{SIZE[1]}",
                    "--seed", self.seed, *LORA, "-o", folder,
                )  # fmt: skip
        return folder / "adapter"

    def engine(
        self, name: str = "hard", *, adapter: Path | None, prompt: Path = PROMPT,
        layout: Layout = "prefix_first", dtype: str = "fp32",
    ) -> Path:  # fmt: skip
        """Return an engine of encoder, base and adapter (None: the base as it is)."""
        folder = self.work / f"engine-{name}-{dtype}"
        if not folder.exists():
            lora = () if adapter is None else ("--adapter", adapter)
            self.murank(
                "export", "--mllm", self.base, *lora, "--prompt", prompt, "--layout", layout,
                "--image-size", f"{SIZE[0]}x{SIZE[1]}", "--dtype", dtype,
                "--parity-pairs", 4, *self._encoder_options(), "--quiet", "-o", folder,
            )  # fmt: skip
        return folder

    def murank(self, *arguments: object) -> None:
        """Run a verb, as on the command line."""
        words = [str(argument) for argument in arguments]
        self.say("murank " + shlex.join(words))
        code = main(words)
        if code != 0:
            raise SystemExit(code)

    def _encoder_options(self) -> Sequence[object]:
        mean, std = (",".join(map(str, values)) for values in (MEAN, STD))
        return (
            "--encoder", self.encoder,
            "--encoder-size", f"{ENCODER_SIZE[0]}x{ENCODER_SIZE[1]}",
            "--encoder-resample", RESAMPLE, "--encoder-mean", mean, "--encoder-std", std,
        )  # fmt: skip

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.work.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with torch.random.fork_rng():
            yield
        self.seconds[name] = round(time.monotonic() - start, 1)
        self.say(f"{name}: {self.seconds[name]:.0f} s")


def _is_trained(folder: Path) -> bool:
    """Whether a training has come to its end; `adapt train` goes on with one that has not."""
    record = folder / "training.json"
    return record.exists() and json.loads(record.read_text())["result"] is not None


def random_alike(hard: Sequence[Pair], *, seed: int) -> list[Pair]:
    """Return for each pair one of the same query and answer, with a candidate drawn at random.

    `adapt mine --random` draws candidates of any person, so that hardly a pair matches: the paper's
    baseline. Half of these match, as of the mined; drawn one by one, a few come twice.
    """
    random = np.random.default_rng(seed)
    paths = sorted({path for pair in hard for path in (pair.query, pair.candidate)})
    people = np.array([Path(path).name.split("_")[0] for path in paths])
    found = []
    for pair in hard:
        same = people == Path(pair.query).name.split("_")[0]
        fits = np.flatnonzero(same if pair.match else ~same)
        choices = [paths[i] for i in random.choice(fits, 2, replace=False)]
        candidate = next(path for path in choices if path != pair.query)
        found.append(Pair(pair.query, candidate, pair.match))
    return found


def training_world(seed: int) -> WorldSettings:
    """What the encoder and the LoRA see: one place, and 300 people for training."""
    return WorldSettings(TRAINING, people=100, train_people=300, shots=3, seed=seed, place=seed)


def evaluation_world(domain: str, seed: int) -> WorldSettings:
    """A place to test in, with people that no training has seen."""
    return WorldSettings(domain, people=100, distractors=100, seed=seed, place=seed)
