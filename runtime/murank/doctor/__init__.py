"""What this machine has, what of it works, and what to install.

Imports machine, folder, backends, engine, and the kernels.
"""

from murank.doctor.compile_kernels import compile_kernels
from murank.doctor.engine_trial import EngineTry
from murank.doctor.examination import Examination, Trial, examine

__all__ = ["EngineTry", "Examination", "Trial", "compile_kernels", "examine"]
