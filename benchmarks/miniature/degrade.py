"""What cameras do to crops, drawn anew each time: moved, covered, coarse, lit, noisy.

Wide and of no place in particular, as training on pictures of everywhere is: a base that has seen
dim, blurred and half-hidden people. All of it at once, each image by a strength of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_COVERED = 0.35  # share of the images that something stands in front of
_SIZES = 4  # different sizes in one batch at which images are recorded
_COARSEST = 0.3
_NOISE = 0.07  # standard deviation of a pixel in [0,1], at most


def degraded(pixels: Tensor) -> Tensor:
    """Return a batch of crops [N,3,H,W] in [0,255] as other cameras would have recorded them."""
    images = pixels.float() / 255
    strength = torch.rand(len(images), 1, 1, 1)
    images = _coarse(_covered(_moved(images, strength)))
    images = _lit(images, strength)
    noise = _NOISE * strength * torch.rand(len(images), 1, 1, 1)
    return (images + noise * torch.randn_like(images)).clamp(0, 1) * 255


def _uniform(like: Tensor, low: float, high: float, channels: int = 1) -> Tensor:
    return low + (high - low) * torch.rand(len(like), channels, 1, 1)


def _moved(images: Tensor, strength: Tensor) -> Tensor:
    """Nearer or further, aside, leaning, and seen from above or below."""
    count, _, high, wide = images.shape
    down = torch.linspace(-1, 1, high)[None, :, None]
    across = torch.linspace(-1, 1, wide)[None, None, :]
    draws = (strength * _uniform(images, -1, 1, 6))[..., 0].unbind(1)
    zoom, aside, up, lean, above, wedge = (draw[:, :, None] for draw in draws)
    zoom = 1 + 0.2 * zoom
    x = zoom * across * (1 + 0.25 * wedge * down) + 0.2 * aside + 0.3 * lean * down
    y = zoom * down + 0.12 * up - 0.08 * lean * across + 0.25 * above * (1 - down**2)
    grid = torch.stack([x, y.expand(count, high, wide)], -1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=True)


def _covered(images: Tensor) -> Tensor:
    """Lay a box over some: of one colour, or a piece of another image."""
    count, _, high, wide = images.shape
    down, across = torch.arange(high)[None, None, :, None], torch.arange(wide)[None, None, None]
    middle_y, middle_x = high * _uniform(images, 0, 1), wide * _uniform(images, 0, 1)
    half_y, half_x = high * _uniform(images, 0.08, 0.5), wide * _uniform(images, 0.05, 0.25)
    inside = ((down - middle_y).abs() < half_y) & ((across - middle_x).abs() < half_x)
    inside &= torch.rand(count, 1, 1, 1) < _COVERED
    plain = torch.rand(count, 1, 1, 1) < 0.5
    front = torch.where(plain, _uniform(images, 0, 1, 3), images[torch.randperm(count)])
    return torch.where(inside, front, images)


def _coarse(images: Tensor) -> Tensor:
    """Record at a smaller size, and enlarge."""
    high, wide = images.shape[2:]
    done = torch.empty_like(images)
    for rows in torch.randperm(len(images)).tensor_split(_SIZES):
        share = 1.1 - (1.1 - _COARSEST) * float(torch.rand(()))
        small = round(high * min(share, 1)), round(wide * min(share, 1))
        part = F.interpolate(images[rows], small, mode="bilinear", antialias=True)
        done[rows] = F.interpolate(part, (high, wide), mode="bilinear")
    return done


def _lit(images: Tensor, strength: Tensor) -> Tensor:
    """Give light of another brightness, colour, contrast and direction."""
    _, _, high, wide = images.shape
    grey = images.mean(1, keepdim=True)
    images = grey + torch.exp(strength * _uniform(images, -1, 0.35)) * (images - grey)
    gain = torch.exp(strength * _uniform(images, -0.8, 0.4))
    gain = gain * torch.exp(0.25 * strength * _uniform(images, -1, 1, 3))
    slope_y, slope_x = (strength * _uniform(images, -0.6, 0.6, 2)).chunk(2, 1)
    down = torch.linspace(-0.5, 0.5, high)[None, None, :, None]
    across = torch.linspace(-0.5, 0.5, wide)[None, None, None]
    images = images * (gain * (1 + slope_y * down + slope_x * across))
    images = images + strength * _uniform(images, -0.05, 0.15)
    gamma = torch.exp(strength * _uniform(images, -0.4, 0.4))
    return images.clamp(0.001, 1) ** gamma
