"""A synthetic world of people and cameras: seeded, drawn, free of anyone's data.

Imports no room; NumPy and Pillow alone, so that it is drawn where no torch is.
"""

from murank_export.world.domains import TRAINING, UNSEEN, Domain, domain_names, make_domain
from murank_export.world.people import Person, make_people
from murank_export.world.scene import draw_crop

__all__ = [
    "TRAINING",
    "UNSEEN",
    "Domain",
    "Person",
    "domain_names",
    "draw_crop",
    "make_domain",
    "make_people",
]
