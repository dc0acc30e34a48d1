"""Checkpoints of multimodal LLMs: loading, adapters, prompt tokens, reference answers.

Imports sources, world, graphs.
"""
