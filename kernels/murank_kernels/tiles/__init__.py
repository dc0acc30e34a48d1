"""Fused distances, a tile at a time: neighbour lists, the k smallest, blocks of query rows.

Imports loops, checks, fusion.
"""
