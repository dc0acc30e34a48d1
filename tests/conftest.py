"""What all tests run under."""

import os

# Read when PyTorch is loaded. Between the small products of these models its threads would spin:
# a second core busy with nothing, and on a busy machine ten times the work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import other_seeds

other_seeds.move_seeds()
