"""How good a ranking is: mAP, CMC and mINP, from the places of matches.

Imports loops, checks, tiles, cuda.
"""
