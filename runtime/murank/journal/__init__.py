"""What a job has found out, kept by content: a run asks for what none before it has answered.

Imports files.
"""

from murank.journal.journal import Journal, MadeBy
from murank.journal.known_mu import KnownMu

__all__ = ["Journal", "KnownMu", "MadeBy"]
