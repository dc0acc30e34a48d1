"""What this machine has, what of it works, and what to install.

Imports machine, folder, backends, engine, and the kernels.
"""

from murank.doctor.compile_kernels import compile_kernels
from murank.doctor.examination import Examination, examine

__all__ = ["Examination", "compile_kernels", "examine"]
