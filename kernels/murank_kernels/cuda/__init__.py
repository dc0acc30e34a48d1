"""The steps of re-ranking on an NVIDIA GPU: what device="cuda" is made of.

Arrays and the matrix product are CuPy's; kernels are compiled by Numba, kept on disk, and started
by CuPy. Without a GPU they run in Numba's simulator. Nothing here is imported before device="cuda"
is asked for.

Imports loops, checks, fusion, tiles, codes.
"""
