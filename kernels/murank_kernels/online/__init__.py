"""One query at a time against a gallery that stays in memory.

Imports loops, checks, fusion, tiles, codes, methods.
"""
