"""What all tests run under."""

import os
import sys

# As at users': otherwise each of some hundred processes compiles all that it imports, a pytest in a
# process of its own even the plugins (three seconds).
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Read when PyTorch and NumPy are loaded. Between small products their threads would spin: a second
# core busy with nothing, and on a busy machine ten times the work. OpenBLAS's for 2^26 cycles.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# One thread: models this small cost a third more with two. `numerics.py` asks with two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

import other_seeds

sys.dont_write_bytecode = False
other_seeds.move_seeds()
