"""What this machine is and gives: cores, memory, libraries. The one place that asks the system.

Imports checks, and cores of the kernels.
"""
