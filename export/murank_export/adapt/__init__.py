"""Adaptation of an MLLM, once and off-line: hard pairs are mined, then LoRA is trained on them.

Imports sources, graphs, mllm, engine.
"""
