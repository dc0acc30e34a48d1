"""Sparse codes of rows: reciprocal sets, weights, query expansion, their Jaccard distance.

Imports loops.
"""
