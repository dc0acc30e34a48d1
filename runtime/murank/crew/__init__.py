"""Units of work done here, in several processes of this machine, or by Ray on many.

A unit that ends the process it runs in is tried again alone, then in halves, until what does it is
known. Whoever asks for answers keeps them: a crew keeps nothing.

Imports machine.
"""

from murank.crew.by_ray import RayActors
from murank.crew.crew_protocol import Crew, Lost, Make, StalledError, Unit, UnitWork
from murank.crew.here import Here
from murank.crew.processes import Processes

__all__ = [
    "Crew",
    "Here",
    "Lost",
    "Make",
    "Processes",
    "RayActors",
    "StalledError",
    "Unit",
    "UnitWork",
]
