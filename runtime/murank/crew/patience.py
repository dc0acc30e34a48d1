"""How long workers may answer nothing before they count as hanging."""

from murank.crew.crew_protocol import StalledError

TIMES, AT_LEAST = 10, 120  # times the slowest answer, and seconds beside that
STARTING = 600  # seconds that the first answer may take beside that: engines load


class Patience:
    """Grows with what answers take."""

    def __init__(self) -> None:
        self._slowest = 0.0
        self._has_answered = False

    @property
    def seconds(self) -> float:
        """How long the next answer of anybody may take."""
        starting = 0 if self._has_answered else STARTING
        return TIMES * self._slowest + AT_LEAST + starting

    def answered(self, seconds: float) -> None:
        """Take note of an answer, which took so long."""
        self._slowest, self._has_answered = max(self._slowest, seconds), True

    def ended(self) -> StalledError:
        """Return what to raise once it is over."""
        return StalledError(
            f"no worker has answered for {self.seconds:.0f} s, and the slowest answer took "
            f"{self._slowest:.1f} s: they hang; what they answered before is kept"
        )


class Endless(Patience):
    """Of a worker whose own workers are watched by somebody else."""

    @property
    def seconds(self) -> float:
        """Weeks."""
        return 2e6
