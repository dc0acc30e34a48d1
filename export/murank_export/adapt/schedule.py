"""The learning rate of each step."""

import math


def learning_rate(step: int, steps: int, *, lr: float, min_lr: float, warmup: int) -> float:
    """Rise for `warmup` steps, then fall along half a cosine; the last step has `min_lr`.

    `step` counts from 0. A training of one step has `lr`.
    """
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    fallen = (step - warmup) / max(1, steps - 1 - warmup)
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * fallen)) / 2
