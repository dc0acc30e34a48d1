"""Camera alignment: what a camera adds to all of its images is taken out of their features.

Two linear steps that need no label and no training, fitted on what the cameras saw: the mean of
each camera is subtracted, and directions in which one person differs between cameras count less.

Imports loops, checks, fusion, tiles, cuda.
"""
