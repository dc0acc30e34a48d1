"""Vision tokens of shots that a gallery keeps: known by their key, without decoding a crop."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from murank.engine.deadline import ImageTokens
from murank.engine.scorer import Scorer
from murank.gallery.shot_records import Picture


class ShotTokens(ImageTokens):
    """Those of some pictures, by their place among them."""

    def __init__(self, scorer: Scorer, pictures: Sequence[Picture]) -> None:
        super().__init__(scorer, [one.jpeg or b"" for one in pictures])
        self._keys |= {place: one.key for place, one in enumerate(pictures) if one.key is not None}
        self._pictures = pictures

    def _remembered(self, places: Sequence[int]) -> dict[int, Any]:
        found = super()._remembered(places)
        for place in places:
            picture = self._pictures[place]
            if place not in found and picture.tokens is not None and picture.key is not None:
                vision = self._scorer.vision
                values = np.frombuffer(picture.tokens, vision.dtype).reshape(vision.shape)
                found[place] = vision.keep(picture.key, values)
        return found
