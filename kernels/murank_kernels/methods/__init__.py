"""The re-ranking methods, a file each: from checked input to blocks of final distances.

Imports loops, checks, fusion, tiles, codes, cuda.
"""
