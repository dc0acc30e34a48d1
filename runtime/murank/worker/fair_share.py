"""Ingest below queries, with a floor: a fifth of the time while both want it."""

_FLOOR = 0.2  # share of ingest
_OWED_EACH = _FLOOR / (1 - _FLOOR)  # seconds owed to ingest for a second of queries
_MOST_OWED = 0.1  # seconds: what was owed long ago is not made up for at once


class FairShare:
    """Who goes next while both wait."""

    def __init__(self) -> None:
        self._owed = 0.0  # seconds, to ingest

    @property
    def is_ingest_next(self) -> bool:
        """Whether ingest has had less than its floor."""
        return self._owed > 0

    def queries_took(self, seconds: float) -> None:
        """Count time of queries while ingest waited."""
        self._owed = min(self._owed + _OWED_EACH * seconds, _MOST_OWED)

    def ingest_took(self, seconds: float) -> None:
        """Count time of ingest while queries waited."""
        self._owed = max(self._owed - seconds, -_MOST_OWED)
