"""How a job tells how far it is."""

from typing import Protocol

from murank.rerank.methods import Progress


class JobLog(Protocol):
    """Where a job's messages go."""

    def part(self, name: str, *, workers: int = 1) -> Progress:
        """Return the callback for one part of the work, which several processes may do."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def note(self, text: str) -> None:
        """Show what the reader of the results must know, and keep it for them."""
