"""The engine that the repository ships, on people and places nobody has seen."""

from pathlib import Path

import numpy as np

from murank import Engine
from murank.cli import main
from murank_export.world import UNSEEN, draw_crop, make_domain, make_people

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"


def test_verify() -> None:
    assert main(["inspect", "--verify", str(ENGINE), "--quiet"]) == 0


def test_it_tells_strangers_from_people_it_has_just_seen() -> None:
    """Not luck: with mu at random this share is 0.5 +- 0.03."""
    engine = Engine.from_pretrained(ENGINE, providers="cpu")
    right = []
    for domain_name in UNSEEN:
        domain = make_domain(domain_name, seed=77)
        people = make_people(16, seed=4_000_000_000, look_alikes=0)
        crops = [
            [draw_crop(person, domain, camera, (who, camera)) for camera in range(3)]
            for who, person in enumerate(people)
        ]
        gallery = [crop for shots in crops for crop in shots[1:]]
        mu = engine.mu_many([shots[0] for shots in crops], [gallery] * len(crops))
        owner = np.repeat(np.arange(len(people)), 2)
        for who, row in enumerate(mu):
            same, others = row[owner == who], row[owner != who]
            right.append((same[:, None] < others).mean())
    assert np.mean(right) > 0.8
