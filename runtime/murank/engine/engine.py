"""The engine: images in; features, mu-distances and ranked candidate matches out."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.backends.choose import check_products, load_on_one
from murank.backends.plan_folder import has_plans
from murank.backends.protocol import GraphSession, Products, SessionSettings
from murank.backends.providers import Providers
from murank.engine.deadline import Pace, check_deadline
from murank.engine.disk_cache import CacheLimits, DiskCache, open_cache
from murank.engine.encoder import Encoder
from murank.engine.memory_cache import Key, MemoryCache, content_key
from murank.engine.pair_orders import Order, mu_in_order, mu_in_time, pixels_of
from murank.engine.results import Ranked, ranked
from murank.engine.scorer import Scorer
from murank.engine.steps import Steps, at_once, steps_of
from murank.engine.threshold import largest_mu
from murank.folder.contents import EngineFiles
from murank.folder.graph_hash import encoder_sha256
from murank.folder.integrity import check_engine, read_pinned
from murank.folder.manifest import Manifest
from murank.folder.reading import reading
from murank.images import DEFAULT_LIMITS, DecodeLimits, ImageSource, check_bits
from murank.images.arguments import check_choice, check_whole

Check = Literal["hashes", "sizes"]
Part = Literal["encoder", "scorer"]
_CLOSED = "this engine was closed: load it again"


class Engine:
    """An exported engine, loaded. Calls from several threads are safe.

    The same pair gets the same mu whatever is asked with it or was asked before: within 1e-5, as
    tested on CPUs in fp32, fp16 and int8 (batches of other sizes may add up in another order).

    Attributes
    ----------
    manifest
        What the folder says of itself.
    sha256
        Of the manifest, which holds those of all files.
    encoder_sha256
        Of all that features depend on; None if it is not known, or there is no encoder.
    encoder, scorer
        The loaded parts; None if the engine lacks one, or it was not asked for.
    fallback
        Why a GPU that seems to be here is not used, where providers="auto" was asked for; None: it
        is, or there is none.
    """

    def __init__(
        self,
        manifest: Manifest,
        sha256: str,
        *,
        encoder: Encoder | None,
        scorer: Scorer | None,
        vision_memory: MemoryCache,
        vision_disk: DiskCache | None,
        fallback: str | None = None,
        features_of: str | None = None,
    ) -> None:
        self.manifest = manifest
        self.sha256, self.encoder_sha256 = sha256, features_of
        self.encoder, self.scorer = encoder, scorer
        self.fallback = fallback
        self._vision_memory, self._vision_disk = vision_memory, vision_disk
        self.pace = Pace()  # of queries with a deadline
        self._closed = False

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        providers: Providers = "auto",
        products: Products = "float32",
        plans: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        parts: Collection[Part] | None = None,
        check: Check = "hashes",
        sha256: str | None = None,
        max_pairs: int | None = None,
        vision_cache_mb: int = 256,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_max_mb: int | None = None,
        cache_max_days: float | None = None,
        bits: int | None = None,
        decode_limits: DecodeLimits = DEFAULT_LIMITS,
    ) -> "Engine":
        """Check an engine folder, then load it.

        Parameters
        ----------
        path
            Folder that `murank export` wrote. To put another engine in its place, rename folders.
        providers
            "auto", "cpu", "cuda", "tensorrt", "tensorrt-plans" (what `murank build` made),
            "openvino" (on the CPU) or "openvino:GPU", or a list of onnxruntime providers, passed
            through. "auto" is never OpenVINO: it is CUDA if every graph can be
            loaded there, else the plans, if there are any and NVIDIA's driver is here, else the CPU
            for all of them, with a warning in the log if a GPU seemed to be here; for a precision
            whose products are TensorRT's (int8-qdq, fp8, int4) the plans come first. What runs is
            in `providers`; what was asked for by name and does not run is an error.
        products
            What OpenVINO multiplies in: "float32"; or "bf16", "fp16" where the device has such
            products, which is about twice as fast and moves log-odds by a few hundredths. Features
            are always made in float32.
        plans
            Folder that `murank build --plans` kept plans of all engines in, such as a read-only
            image for equal boards, and where OpenVINO's compiled graphs are kept; None: in the
            user's cache folder.
        threads
            Threads of one operator; None: the physical cores that this process may use (affinity
            and cgroup quota).
        parts
            Load these only ("encoder", "scorer"); None: all that the engine has.
        check
            "hashes": every file is read once, and what is loaded is what was hashed: what becomes
            of the folder afterwards changes nothing. "sizes": large files are neither hashed nor
            copied, which loads faster; for a folder that nobody writes to while the engine is open,
            such as a read-only image: its answers would change, or the process end.
        sha256
            What `Engine.sha256` must be: the hashes in a folder show damage, and only a pin kept
            elsewhere shows that it is the folder you mean.
        max_pairs
            Pairs in one run of the decoder, at most; None: the engine's own number.
        vision_cache_mb
            Memory for vision tokens of images seen before; 0 keeps none.
        cache_dir
            Folder to keep them in across runs (biometric data; owner-only); None: none. Its
            parents are made, it may be no symlink.
        cache_max_mb, cache_max_days
            What may stay in `cache_dir`, of all engines together: older files go at the start and
            whenever something is written, and the oldest ones beyond that size. None: no limit.
        bits
            Of 16-bit grey images: how many the sensor gave, 8..16; None: 16 (see
            `murank.images.load_image`).
        decode_limits
            What decoding an image may cost; larger ones are refused by their header.

        Raises
        ------
        InputError
            The folder is not what its manifest says, lacks a part asked for, or its precision does
            not run with these providers.
        OutputError
            `cache_dir` cannot be used.
        MachineError
            onnxruntime or a provider asked for is not here.
        """
        folder = Path(path)
        kept_plans = None if plans is None else Path(plans)
        limits = CacheLimits(cache_max_mb, cache_max_days)
        check_bits(bits)
        check_whole(vision_cache_mb, "vision_cache_mb", least=0)
        for name, value in (("max_pairs", max_pairs), ("threads", threads)):
            if value is not None:
                check_whole(value, name)
        check_choice(check, "check", get_args(Check))
        check_products(providers, products)
        manifest, made = read_pinned(folder, sha256)
        check_engine(folder, hashes=False, manifest=manifest)
        files = EngineFiles(folder, manifest, in_place=check == "sizes")
        wanted = _wanted_parts(manifest, folder, parts)
        memory = MemoryCache(vision_cache_mb << 20)
        disk = open_cache(cache_dir, files, limits)

        def load(providers: Providers) -> tuple[Encoder | None, Scorer | None]:
            settings = SessionSettings(providers, threads, kept_plans, products)
            encoder = scorer = None
            if "encoder" in wanted and manifest.encoder is not None:
                encoder = Encoder(files, reading(manifest.encoder, bits, decode_limits), settings)
            if "scorer" in wanted and manifest.scorer is not None:
                part = reading(manifest.scorer, bits, decode_limits)
                scorer = Scorer(
                    files, part, settings, item_bytes=manifest.arithmetic.item_bytes,
                    max_pairs=max_pairs or part.max_pairs, vision_memory=memory,
                    vision_disk=disk,
                )  # fmt: skip
            return encoder, scorer

        precision = manifest.precision if "scorer" in wanted else "fp32"
        (encoder, scorer), fallback = (
            load_on_one(
                providers, precision, folder, load, has_plans=has_plans(manifest, kept_plans)
            )
            if wanted
            else ((None, None), None)
        )
        files.check_rest()
        return cls(
            manifest, made, encoder=encoder, scorer=scorer, vision_memory=memory,
            vision_disk=disk, fallback=fallback,
            features_of=None if encoder is None else encoder_sha256(files),
        )  # fmt: skip

    @property
    def providers(self) -> Mapping[str, list[str]]:
        """What runs each graph: onnxruntime's providers, first choice first, or another backend."""
        return {name: session.providers for name, session in self._sessions().items()}

    def embed(self, images: Sequence[ImageSource]) -> NDArray[np.float32]:
        """Features of images (paths, bytes of files, PIL images, RGB arrays): [B,D], unit rows.

        Raises
        ------
        InputError
            The engine has no encoder, or an image cannot be used (it is named).
        """
        encoder = self.need_encoder()
        pixels = pixels_of(images, encoder.part.preprocessing, "images")
        if not pixels:
            return np.empty((0, encoder.part.dim), np.float32)
        return encoder.features(np.stack(pixels), images)

    def mu(
        self, query: ImageSource, candidates: Sequence[ImageSource], *, order: Order = "given"
    ) -> NDArray[np.float32]:
        """Mu-distances [K] of a query's candidates: p("different person"), small = same person.

        Parameters
        ----------
        query, candidates
            Paths, PIL images, uint8 RGB arrays [H,W,3], or what `murank.images.prepare` makes.
        order
            "given"; "swapped": the two images change places in the prompt; "both": the mean of
            the two, at about three times the cost.

        Raises
        ------
        InputError
            The engine has no scorer, an image cannot be used (it is named), `order` is unknown, or
            the answer is no number (an overflow in float16; images and graph are named).
        """
        (mu,) = self.mu_many([query], [candidates], order=order)
        return cast("NDArray[np.float32]", mu)

    def mu_many(
        self,
        queries: Sequence[ImageSource],
        candidates: Sequence[Sequence[ImageSource]],
        *,
        order: Order = "given",
    ) -> NDArray[np.float32]:
        """Mu-distances [Q,K] of several queries, K candidates each; see `mu`."""
        return mu_in_order(self.need_scorer(), queries, candidates, order).astype(np.float32)

    def predict(
        self, pairs: Sequence[tuple[ImageSource, ImageSource]], *, order: Order = "given"
    ) -> NDArray[np.float32]:
        """Scores 1 - mu [n] of (query, candidate) pairs, large = same person.

        Neighbouring pairs of the same query share its prefix.
        """
        self.need_scorer()
        if not isinstance(pairs, (tuple, list)) or not all(
            isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs
        ):
            raise InputError("pairs must be a list of (query, candidate)")
        scores = [np.empty(0, np.float32)]
        start = 0
        while start < len(pairs):
            end = start + 1
            while end < len(pairs) and _is_same(pairs[end][0], pairs[start][0]):
                end += 1
            candidates = [candidate for _, candidate in pairs[start:end]]
            scores.append(1 - self.mu(pairs[start][0], candidates, order=order))
            start = end
        return np.concatenate(scores)

    @at_once
    def rank(
        self,
        query: ImageSource,
        candidates: Sequence[ImageSource],
        top_k: int | None = None,
        *,
        order: Order = "given",
        threshold: float | Literal["calibrated"] | None = None,
        deadline_ms: float | None = None,
    ) -> Steps[Ranked]:
        """Candidates by mu, best first, equal ones in the order given; the first `top_k`.

        Parameters
        ----------
        query, candidates, order
            As `mu` takes them.
        top_k
            Candidates returned, at most; None: all.
        threshold
            Largest mu of a candidate match: those above are left out, and an empty list says that
            no candidate matches. "calibrated": what `murank calibrate` found; None: any mu.
        deadline_ms
            Milliseconds from this call on. Candidates are asked about a few at a time in the order
            given (so give the likeliest first), while another batch will probably end in time, by
            what they took lately. Late by one step at most (images to vision tokens, prefill, or a
            batch). One that was not seen is ordered as if its mu were 0.5, has mu None, and is left
            out where there is a threshold.

        Raises
        ------
        InputError
            As `mu` raises it; `top_k`, `threshold` or `deadline_ms` cannot be; "calibrated" without
            a calibration, or with another order than the one it was measured in; a deadline with
            another order than "given".
        """
        start = self.pace.clock()
        if top_k is not None:
            check_whole(top_k, "top_k")
        most = largest_mu(threshold, self.manifest.calibration, order=order)
        check_deadline(deadline_ms)
        scorer = self.need_scorer()
        if deadline_ms is None:
            mu = mu_in_order(scorer, [query], [candidates], order)[0]  # float64: fewer ties
        else:
            end = start + deadline_ms / 1000
            mu = yield from steps_of(mu_in_time, scorer, query, candidates, order, self.pace, end)
        return ranked(mu, len(candidates), top_k=top_k, most=most)

    def forget(self, image: ImageSource) -> bool:
        """Erase all that is kept of one image, in memory and in `cache_dir`.

        That is its vision tokens, there and on a GPU, and its prefix if it was a query. An image
        is known by its pixels at the engine's size: the same picture under another name is the same
        image, another picture of the same person is not. What a call in progress computes of it may
        be kept again.

        Returns
        -------
        bool
            Whether anything was there.

        Raises
        ------
        InputError
            The image cannot be used.
        OutputError
            A file may have stayed.
        """
        part = self.manifest.scorer
        if part is None:
            return False
        (pixels,) = pixels_of([image], part.preprocessing, "image")
        return self.forget_key(content_key(pixels))

    def forget_key(self, key: Key) -> bool:
        """Erase all that is kept of one image, as `forget`, by the hash of its pixels."""
        had_any = self._vision_memory.forget(key)
        if self.scorer is not None:
            had_any |= self.scorer.forget(key)
        if self._vision_disk is not None:
            had_any |= self._vision_disk.forget(key)
        return had_any

    def clear_cache(self) -> None:
        """Erase all that is kept of images seen so far, in memory and in `cache_dir`.

        Raises
        ------
        OutputError
            A file may have stayed.
        """
        self._vision_memory.clear()
        if self._vision_disk is not None:
            self._vision_disk.clear()
        if self.scorer is not None:
            self.scorer.clear()

    def close(self) -> None:
        """Free what was loaded, on a GPU as well, and forget images; `cache_dir` stays as it is.

        Leaving `with Engine.from_pretrained(...) as engine:` does it. What is asked afterwards, of
        a Searcher of it, too, is an InputError; calls in progress end first. Twice is once.
        """
        self._closed = True
        for session in self._sessions().values():
            session.close()
        self._vision_memory.clear()
        if self.scorer is not None:
            self.scorer.clear()
        self.encoder = self.scorer = None

    def __enter__(self) -> "Engine":
        if self._closed:
            raise InputError(_CLOSED)
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def need_encoder(self) -> Encoder:
        """Return the encoder; InputError if there is none, or the engine was closed."""
        if self.encoder is None:
            raise InputError(self._lacks("encoder", "encoder"))
        return self.encoder

    def need_scorer(self) -> Scorer:
        """Return the scorer; InputError if there is none, or the engine was closed."""
        if self.scorer is None:
            raise InputError(self._lacks("MLLM", "mllm"))
        return self.scorer

    def _lacks(self, what: str, option: str) -> str:
        if self._closed:
            return _CLOSED
        return f"this engine has no {what} loaded: run murank export with --{option}"

    def _sessions(self) -> dict[str, GraphSession]:
        sessions = {}
        if self.encoder is not None:
            sessions["encoder"] = self.encoder.session
        if self.scorer is not None:
            sessions["vision"] = self.scorer.vision.session
            sessions["decoder"] = self.scorer.decoder.session
        return sessions


def _is_same(one: ImageSource, other: ImageSource) -> bool:
    """Whether two sources are one object or one path; equal pixels are not looked for."""
    paths = (str, os.PathLike)
    both_paths = isinstance(one, paths) and isinstance(other, paths)
    return one is other or (both_paths and os.fspath(one) == os.fspath(other))  # type: ignore[arg-type]


def _wanted_parts(
    manifest: Manifest, folder: Path, parts: Collection[Part] | None
) -> Collection[str]:
    has: dict[str, Any] = {"encoder": manifest.encoder, "scorer": manifest.scorer}
    if parts is None:
        return [name for name, part in has.items() if part is not None]
    for name in parts:
        if has.get(name) is None:
            raise InputError(f"{folder} has no {name}: export it with one, or do without")
    return parts
