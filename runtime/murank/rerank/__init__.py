"""Features and mu to rankings: methods, camera alignment, evaluation, comparison.

Imports checks, machine, files, images, datasets, crew, and the kernels.
"""
