"""Build-machine side of murank: checkpoints in, engine folder out. Empty so far.

This is the one package of the three that may import torch and transformers.
"""

__all__: list[str] = []
