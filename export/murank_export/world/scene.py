"""A crop: person, pose, background, what stands in front, camera."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from murank_export.world.backgrounds import cut
from murank_export.world.body import HEIGHT, SCALE, WIDTH, draw_person, random_pose
from murank_export.world.camera import Camera, expose
from murank_export.world.domains import Domain
from murank_export.world.people import Person, make_people

_W, _H = WIDTH * SCALE, HEIGHT * SCALE


def draw_crop(person: Person, domain: Domain, camera: int, seed: Sequence[int]) -> Image.Image:
    """Return the crop that a camera of a domain takes of a person; equal arguments, equal pixels.

    Parameters
    ----------
    person, domain
        Who, and where.
    camera
        Index into `domain.cameras`.
    seed
        Of all that is drawn for this one crop: pose, part of the background, occlusion, noise.

    Returns
    -------
    Image
        RGB, 64 wide and 128 high.
    """
    random = np.random.default_rng(seed)
    sees = domain.cameras[camera]
    scene = cut(random, sees.background)
    pose = random_pose(
        random, view=sees.view, spread=sees.spread, jitter=domain.jitter, elevation=sees.elevation
    )
    draw_person(person, pose, scene)
    if random.random() < domain.occlusion:
        _occlude(scene, str(random.choice(domain.occluders)), random, sees)
    return expose(scene, sees, random)


def _occlude(scene: Image.Image, kind: str, random: np.random.Generator, camera: Camera) -> None:
    pen = ImageDraw.Draw(scene)
    red, green, blue = (
        int(v) for v in np.clip(random.uniform(30, 210) + 30 * random.standard_normal(3), 0, 255)
    )
    colour = (red, green, blue)
    left = random.random() < 0.5
    if kind == "counter":
        pen.rectangle((0, _H * random.uniform(0.55, 0.88), _W, _H), fill=colour)
    elif kind == "wall":
        reach = _W * random.uniform(0.18, 0.38)
        pen.rectangle((0, 0, reach, _H) if left else (_W - reach, 0, _W, _H), fill=colour)
    elif kind == "pole":
        middle, wide = _W * random.uniform(0.25, 0.75), _W * random.uniform(0.05, 0.1)
        pen.rectangle((middle - wide, 0, middle + wide, _H), fill=colour)
    else:
        _passer_by(scene, random, camera, left=left)


def _passer_by(
    scene: Image.Image, random: np.random.Generator, camera: Camera, *, left: bool
) -> None:
    (other,) = make_people(1, seed=int(random.integers(1 << 31)))
    pose = random_pose(random, view=camera.view, spread=2.0, jitter=1.0, elevation=camera.elevation)
    aside = (-1 if left else 1) * random.uniform(0.12, 0.22)
    moved = type(pose)(**{**vars(pose), "x": aside, "y": random.uniform(0.08, 0.25)})
    draw_person(other, moved, scene)
