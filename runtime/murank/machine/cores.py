"""How many threads the appliance's own work is worth; what a process may use: murank_kernels."""

from murank_kernels.machine.cores import usable_cores

_DECODING = 4


def decoding_threads(cores: int | None = None) -> int:
    """How many images are decoded at once: no more than cores, and few, for each holds one.

    `cores` is the share of a process that works beside others; None: all that it may use.
    """
    return min(_DECODING, usable_cores() if cores is None else cores)
