"""Mu-distances of query-candidate pairs. Prefixes (K/V) of recent queries are kept here."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import MachineError
from murank.backends.onnx.session import SessionSettings
from murank.engine.decoder import Decoder, Prefix
from murank.engine.disk_cache import DiskCache
from murank.engine.memory_cache import Key, MemoryCache, ShownImage, content_key, file_key
from murank.engine.vision import VisionTokens
from murank.folder.contents import EngineFiles
from murank.folder.manifest import ScorerPart

Pixels = NDArray[np.uint8]  # [3,H,W]
_PREFIXES = 4  # kept, of the queries asked most recently
_FILES = 8192  # whose pixels' keys are remembered
_QUERIES = 8  # in one run: each brings K/V of its own


class Scorer:
    """The MLLM of an engine folder."""

    def __init__(
        self,
        files: EngineFiles,
        part: ScorerPart,
        settings: SessionSettings,
        *,
        item_bytes: int,
        max_pairs: int,
        vision_memory: MemoryCache,
        vision_disk: DiskCache | None,
    ) -> None:
        """Load it; `item_bytes` are those of one value of K/V."""
        self.part = part
        self._max_pairs = max_pairs
        self.decoder = Decoder(files, part, settings)
        # Plans may be built for fewer candidates than the engine takes.
        self._most_candidates = self.decoder.session.longest("vision", 1) or max_pairs
        self.vision = VisionTokens(
            files, part, settings, dtype=self.decoder.dtype, taker=self.decoder.session.memory,
            memory=vision_memory, disk=vision_disk, in_flight=max_pairs + _QUERIES,
        )  # fmt: skip
        self._prefix_bytes = part.shapes.kv_values * item_bytes
        self._prefixes = MemoryCache(_PREFIXES * self._prefix_bytes)
        self._files = MemoryCache(_FILES)  # keys of pixels by those of the files they were in

    def logits(self, query: ShownImage, candidates: Sequence[ShownImage]) -> NDArray[np.float32]:
        """Logits [K,2] of No and Yes for one query; its prefix is remembered."""
        prefix = self._prefix(query)
        parts = [np.empty((0, 2), np.float32)]
        for part in self.batches(len(candidates)):
            tokens = self.vision.of(candidates[part])
            parts.append(self.decoder.logits(prefix, tokens[None])[0])
        return np.concatenate(parts)

    def swapped_logits(
        self, query: ShownImage, candidates: Sequence[ShownImage]
    ) -> NDArray[np.float32]:
        """Logits [K,2] with the two images in each other's place: a prefix for each candidate."""
        if not candidates:
            return np.empty((0, 2), np.float32)
        return self.logits_of_many(candidates, [[query]] * len(candidates))[:, 0]

    def logits_of_many(
        self, queries: Sequence[ShownImage], candidates: Sequence[Sequence[ShownImage]]
    ) -> NDArray[np.float32]:
        """Logits [Q,K,2] for several queries of K candidates each, as many in a run as fit.

        A MachineError says which queries were asked about, counted from 0.
        """
        count = len(candidates[0]) if candidates else 0
        if count == 0:
            return np.empty((len(queries), 0, 2), np.float32)
        group = self.queries_at_once(count)
        if len(queries) == 1:
            return self.logits(queries[0], candidates[0])[None]
        parts = []
        for part in _runs(len(queries), group):
            with _named(part, len(queries)):
                parts.append(self._logits_of_group(queries[part], candidates[part], group))
        return np.concatenate(parts)

    def _logits_of_group(
        self, queries: Sequence[ShownImage], candidates: Sequence[Sequence[ShownImage]], group: int
    ) -> NDArray[np.float32]:
        """In one run where several fit into one, else each by itself."""
        if group < 2:
            return np.stack([self.logits(*one) for one in zip(queries, candidates, strict=True)])
        prefix = self.decoder.prefill(self.vision.of(queries))
        tokens = self.vision.of([image for row in candidates for image in row])
        tokens = tokens.reshape(len(queries), -1, *tokens.shape[1:])
        return self.decoder.logits(prefix, tokens)

    def logits_together(
        self, batches: Sequence[tuple[Prefix, NDArray[Any]]]
    ) -> list[NDArray[np.float32]]:
        """Logits [n,2] of several queries' candidates [n,levels,T,H], in one run.

        Where one has fewer, its last one is asked about again. On a GPU, where joining prefixes
        would mean copying them, it is one run each.
        """
        if len(batches) == 1 or self.decoder.session.device != "cpu":
            return [self.decoder.logits(prefix, tokens[None])[0] for prefix, tokens in batches]
        most = max(len(tokens) for _, tokens in batches)
        rows = [np.minimum(np.arange(most), len(tokens) - 1) for _, tokens in batches]
        prefix = self.decoder.joined([prefix for prefix, _ in batches])
        stacked = np.stack([tokens[row] for (_, tokens), row in zip(batches, rows, strict=True)])
        logits = self.decoder.logits(prefix, stacked)
        return [some[: len(one)] for some, (_, one) in zip(logits, batches, strict=True)]

    def log_odds(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """[...,2] -> [...]: log(p(No) / p(Yes)) at the engine's temperature, small = same."""
        wide = logits.astype(np.float64)
        with np.errstate(invalid="ignore"):  # NaN stays NaN; whoever asks decides
            odds: NDArray[np.float64] = (wide[..., 0] - wide[..., 1]) / self.part.tau
        return odds

    def mu(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """[...,2] -> [...]: p("different person") = p(No), small = same person."""
        return mu_of(self.log_odds(logits))

    def clear(self) -> None:
        """Forget the prefixes of earlier queries, and the files of images."""
        self._prefixes.clear()
        self._files.clear()

    def forget(self, key: Key) -> bool:
        """Forget the prefix of one query image, and its files; return whether there was one."""
        self._files.forget_value(key)
        return self._prefixes.forget(key)

    def batches(self, count: int, most: int | None = None) -> Iterator[slice]:
        """Split `count` pairs of one query into runs of the decoder, of at most `most` pairs."""
        fit = min(self._max_pairs, self._most_candidates)
        return _runs(count, fit if most is None else min(most, fit))

    def queries_at_once(self, count: int) -> int:
        """Queries of `count` candidates each that fit into one run of the decoder; at least 1."""
        if count > self._most_candidates:
            return 1
        return max(1, min(self._max_pairs // max(1, count), _QUERIES))

    def remembered(self, key: Key) -> NDArray[Any] | None:
        """Vision tokens [levels,T,H] of the image with this key, if they are still kept.

        On a GPU the row that they lie in, which passes for them.
        """
        tokens: NDArray[Any] | None = self.vision._remembered(key)
        return tokens

    def key_of_file(self, data: bytes) -> Key | None:
        """Return the key of an image whose file was decoded before: it need not be again."""
        key: Key | None = self._files.get(file_key(data))
        return key

    def remember_file(self, data: bytes, key: Key) -> None:
        """Keep the key of a file's pixels."""
        self._files.put(file_key(data), key, 1)

    def known_prefix(self, key: Key) -> Prefix | None:
        """Return the prefix of the query image with this key, if it is still kept."""
        prefix: Prefix | None = self._prefixes.get(key)
        return prefix

    def new_prefix(self, key: Key, tokens: NDArray[Any]) -> Prefix:
        """Compute and keep the prefix of a query image, given its vision tokens [levels,T,H]."""
        prefix = self.decoder.prefill(np.stack([tokens]))
        self._prefixes.put(key, prefix, self._prefix_bytes)
        return prefix

    def _prefix(self, query: ShownImage) -> Prefix:
        key = content_key(query)
        prefix = self.known_prefix(key)
        return self.new_prefix(key, self.vision.of([query])[0]) if prefix is None else prefix


@contextmanager
def _named(part: slice, total: int) -> Iterator[None]:
    """Let the failure of a run say whose run it was."""
    try:
        yield
    except MachineError as error:
        last = part.stop - 1
        raise MachineError(f"queries {part.start} to {last} of {total}: {error}") from error


def mu_of(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p(No) [...] of log(p(No) / p(Yes)) [...]."""
    # No overflow at one end, no loss of digits at the other: small mu stay apart.
    with np.errstate(invalid="ignore"):
        mu: NDArray[np.float64] = np.exp(-np.logaddexp(0, -log_odds))
    return mu


def _runs(count: int, most: int) -> Iterator[slice]:
    """Split into the fewest runs of at most `most`, all of nearly one length."""
    number = -(-count // most)
    for index in range(number):
        yield slice(index * count // number, (index + 1) * count // number)
