"""What the routes of a service share."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from murank._version import __version__
from murank.gallery.gallery import Gallery
from murank.service.access import Tokens
from murank.service.audit import Audit
from murank.service.service_metrics import Metrics
from murank.worker.worker import Worker

DISK_RESERVE = 256 << 20  # bytes, that adding and erasing need


@dataclass
class ServiceState:
    """One engine, perhaps a gallery, and who may ask."""

    worker: Worker
    name: str  # of the engine, to callers
    tokens: Tokens | None  # None: open to all who reach it
    audit: Audit
    deadline_ms: float | None = None  # for what names none
    relates: bool = False  # in idle time
    metrics: Metrics = field(default_factory=lambda: Metrics(__version__))
    is_warm: bool = False
    trouble: str | None = None  # why it never will be
    is_draining: bool = False
    in_progress: int = 0  # requests

    @property
    def gallery(self) -> Gallery | None:
        """The gallery, where there is one."""
        return self.worker.gallery if self.worker.has_gallery else None

    def reasons(self) -> list[str]:
        """Return why it takes no work; none: it does."""
        found = []
        if not self.worker.is_alive:
            found.append("the worker's thread has ended: see standard error, and start again")
        if self.is_draining:
            found.append("it is being stopped")
        if not self.is_warm:
            found.append(self.trouble or "kernels are being compiled")
        if self.gallery is not None and _free(self.gallery.path) < DISK_RESERVE:
            found.append(f"the gallery's disk has less than {DISK_RESERVE >> 20} MiB left")
        return found


def _free(path: Path) -> int:
    return shutil.disk_usage(path.resolve().parent).free
