"""The miniature Re-ID encoder: a small residual network trained on one domain, as one would."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

SIZE = (112, 56)  # height, width of what it takes
MEAN, STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)
RESAMPLE = "bilinear"
_DIM = 256
_PEOPLE, _SHOTS = 16, 4  # of a batch
_MARGIN = 0.3


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.first = _conv(inner, outer, 2)
        self.second = nn.Sequential(
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        )
        self.past = nn.Conv2d(inner, outer, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.past(x))


class Encoder(nn.Module):
    """Normalised images [B,3,112,56] -> features [B,256], behind a batch-norm neck."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(3, 24, 2), _Block(24, 32), _Block(32, 64), _Block(64, 112))
        self.project = nn.Linear(112 * 3, _DIM)
        self.neck = nn.BatchNorm1d(_DIM)

    def raw(self, images: Tensor) -> Tensor:
        """Features before the neck: [B,256]. The crop is averaged in three strips."""
        maps = self.body(images)  # [B,112,7,4]
        strips = torch.stack([maps[:, :, :3].mean((2, 3)), maps[:, :, 2:5].mean((2, 3)),
                              maps[:, :, 4:].mean((2, 3))], 2)  # fmt: skip
        found: Tensor = self.project(strips.flatten(1))
        return found

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.neck(self.raw(images))
        return features


def train_encoder(
    pixels: NDArray[np.uint8], people: NDArray[np.int64], *, steps: int, seed: int,
    say: Callable[[str], None],
) -> Encoder:  # fmt: skip
    """Train on crops [N,3,H,W] of one domain: cross entropy of the person, and hard triplets."""
    torch.manual_seed(seed)
    _, numbers = np.unique(people, return_inverse=True)
    labels, images = torch.from_numpy(numbers), torch.from_numpy(pixels)
    rows = [torch.nonzero(labels == person)[:, 0] for person in range(int(labels.max()) + 1)]
    encoder, head = Encoder(), nn.Linear(_DIM, len(rows), bias=False)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=1e-2)
    start = time.monotonic()
    for step in range(steps):
        share = min(1.0, (step + 1) / 60) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * share
        people_now = torch.randperm(len(rows))[:_PEOPLE].tolist()
        batch = torch.cat(
            [rows[one][torch.randperm(len(rows[one]))[:_SHOTS]] for one in people_now]
        )
        raw = encoder.raw(normalised(_spoiled(images[batch])))
        scores = head(encoder.neck(raw))
        loss = F.cross_entropy(scores, labels[batch], label_smoothing=0.1)
        loss = loss + _triplet(raw, labels[batch])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if (step + 1) % 200 == 0:
            took = time.monotonic() - start
            say(f"encoder {step + 1}/{steps} loss {float(loss.detach()):.3f} {took:.0f} s")
    return encoder.eval()


def normalised(pixels: Tensor) -> Tensor:
    """Pixels in [0,255] as the encoder takes them."""
    return (pixels.float() / 255 - MEAN[0]) / STD[0]


def save_onnx(encoder: Encoder, file: Path) -> None:
    """Write the encoder as murank export takes it: normalised images in, features out."""
    example = torch.zeros(2, 3, *SIZE)
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        encoder, (example,), dynamo=True, input_names=["images"], output_names=["features"],
        dynamic_shapes=({0: batch},), verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(file)


def _conv(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()
    )


def _spoiled(pixels: Tensor) -> Tensor:
    """Flip, shift and partly erase, as Re-ID encoders are trained."""
    images = _shifted(pixels)
    flip = torch.rand(len(images)) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    for image in images:
        if torch.rand(()) < 0.4:
            high, wide = int(torch.randint(10, 40, ())), int(torch.randint(8, 30, ()))
            y = int(torch.randint(SIZE[0] - high, ()))
            x = int(torch.randint(SIZE[1] - wide, ()))
            image[:, y : y + high, x : x + wide] = 255 * MEAN[0]
    return images


def _shifted(pixels: Tensor, most: int = 4) -> Tensor:
    """Move a batch of images by a few pixels, edges repeated."""
    down, across = torch.randint(0, 2 * most + 1, (2,)).tolist()
    padded = F.pad(pixels.float(), (most, most, most, most), mode="replicate")
    return padded[:, :, down : down + pixels.shape[2], across : across + pixels.shape[3]]


def _triplet(features: Tensor, labels: Tensor) -> Tensor:
    distances = torch.cdist(features, features)
    same = labels[:, None] == labels
    furthest = distances.masked_fill(~same, 0).max(1).values
    nearest = distances.masked_fill(same, torch.inf).min(1).values
    return F.relu(furthest - nearest + _MARGIN).mean()
