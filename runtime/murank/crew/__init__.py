"""Units of work done here, in several processes of this machine, or by Ray on many.

A unit that ends the process it runs in is tried again alone, then in halves, until what does it is
known. Whoever asks for answers keeps them: a crew keeps nothing.

Imports nothing of murank but what it raises.
"""

from murank.crew.crew_protocol import Crew, Lost, Make, StalledError, Unit, UnitWork
from murank.crew.here import Here
from murank.crew.processes import Processes

__all__ = ["Crew", "Here", "Lost", "Make", "Processes", "StalledError", "Unit", "UnitWork"]
