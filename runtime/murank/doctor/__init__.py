"""What this machine has, what of it works, and what to install."""

from murank.doctor._compile import compile_kernels
from murank.doctor._engine import EngineTry
from murank.doctor._examine import Examination, Trial, examine

__all__ = ["EngineTry", "Examination", "Trial", "compile_kernels", "examine"]
