"""Build-machine side of murank: checkpoints in, engine folder out.

This is the one package of the three that may import torch and transformers; importing it does not.
"""

__all__: list[str] = []
