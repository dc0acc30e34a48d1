"""What murank_kernels raises.

MurankKernelsError
├── InvalidInputError (also ValueError)         the caller's mistake; the message says what to do
└── DeviceUnavailableError (also RuntimeError)  the device asked for is not here
"""


class MurankKernelsError(Exception):
    """Base of everything that murank_kernels raises on purpose."""


class InvalidInputError(MurankKernelsError, ValueError):
    """An argument cannot be used; raised before any work is done."""


class DeviceUnavailableError(MurankKernelsError, RuntimeError):
    """The asked-for device is not here."""
