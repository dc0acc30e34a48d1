"""How a job tells how far it is."""

from typing import Protocol

from murank.rerank.methods import Progress


class JobLog(Protocol):
    """Where a job's messages go."""

    def part(self, name: str) -> Progress:
        """Return the callback for one part of the work."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def note(self, text: str) -> None:
        """Show what the reader of the results must know, and keep it for them."""
