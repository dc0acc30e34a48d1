"""What the stages of one run share: the engine, what is known, who works, what was asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from murank._exceptions import InputError
from murank.crew.crew_protocol import Crew
from murank.jobs.image_contents import NoContent, digests_of
from murank.jobs.job_log import JobLog
from murank.jobs.job_units import Provenance
from murank.jobs.lazy_engine import LazyEngine
from murank.jobs.skip_limit import DEFAULT_SKIPS, SkipLimit
from murank.jobs.stage import fingerprint
from murank.journal.journal import Digest, Journal, MadeBy, Stat
from murank.machine.device_kind import EXACT, products_of

_FILES = 4096  # whose contents are recorded together


@dataclass
class Desk:
    """One run of a job."""

    engine: LazyEngine
    report: JobLog
    crew: Crew
    journal: Journal = field(default_factory=Journal)
    skips: SkipLimit = DEFAULT_SKIPS
    mixed: bool = False  # whether answers of several kinds of devices may stand side by side
    images_embedded: int = 0  # by this run
    pairs_asked: int = 0  # by this run, in each order
    used: set[Digest] = field(default_factory=set)  # contents of the job's images
    tokens_looked_up: int = 0  # vision tokens of images
    tokens_computed: int = 0  # those of them that were not kept

    @cached_property
    def embeds(self) -> str:
        """Fingerprint of all that features depend on, beside the image."""
        return fingerprint("features", self.engine.exported_sha256, self.engine.read_as)

    @cached_property
    def asks(self) -> str:
        """Fingerprint of all that mu depends on, beside the images."""
        return fingerprint("mu", self.engine.answers_sha256, self.engine.read_as)

    def check_products(self) -> None:
        """Raise InputError if known mu came of other products than are asked for.

        Also where nothing is left to ask: no precision is changed without a word.
        """
        wanted = self.engine.products
        known = {products_of(maker.providers) for maker in self.journal.made_by(self.asks)}
        others = sorted(known - {wanted})
        if others and not self.mixed:
            go_on = f"products={others[0]!r}"
            if others[0] != EXACT:
                go_on = f"providers='openvino' and {go_on}"
            raise InputError(
                f"the job holds mu of products in {', '.join(others)}, and {wanted} is asked for: "
                f"go on with {go_on}, start another job, or pass --mixed to take those as they are"
            )

    def made_by(self, engine: str, origin: Provenance) -> MadeBy:
        """Return what is recorded of an answer.

        Raises InputError if what is known is of another kind of device.
        """
        others = {maker.device for maker in self.journal.made_by(engine)} - {origin.device}
        if others and not self.mixed:
            raise InputError(
                f"this machine answers by {origin.device}, and the job holds answers of "
                f"{', '.join(sorted(others))}, which may differ, if only in the last digits: go on "
                "there, or pass --mixed"
            )
        return MadeBy(engine, origin.device, origin.providers)

    def providers_of(self, engine: str) -> dict[str, list[str]]:
        """Return what ran each graph, now or when it was recorded."""
        providers: dict[str, list[str]] = {}
        for maker in self.journal.made_by(engine):
            providers |= {graph: list(names) for graph, names in maker.providers.items()}
        return providers

    def announce(self, file: str, unit: str, known: int, total: int) -> str:
        """Say how much is known before a stage; return "made", "resumed" or "reused"."""
        if known == total:
            self.report.say(f"{file}: reused")
            return "reused"
        if known:
            self.report.say(f"{file}: goes on, {known:,} of {total:,} {unit} known")
            return "resumed"
        return "made"

    def contents_of(
        self, paths: Sequence[Path], stats: Mapping[Path, Stat | None]
    ) -> dict[Path, Digest | NoContent]:
        """Return the contents of files: as recorded, else they are read."""
        found: dict[Path, Digest | NoContent] = {}
        unread: list[Path] = []
        for path in paths:
            known = self.journal.digest(str(path.absolute()), stats[path])
            if known is None:
                unread.append(path)
            else:
                found[path] = known
        show = self.report.part("read")
        new: list[tuple[str, Stat, Digest]] = []
        for path, content in digests_of(unread, self.engine.limits):
            found[path] = content
            stat = stats[path]
            if isinstance(content, bytes) and stat is not None:
                new.append((str(path.absolute()), stat, content))
            if len(new) >= _FILES:
                self._record(new)
            show("images", len(found), len(paths))
        self._record(new)
        return found

    def _record(self, new: list[tuple[str, Stat, Digest]]) -> None:
        if new:
            self.journal.record_files(*zip(*new, strict=True))
            new.clear()
