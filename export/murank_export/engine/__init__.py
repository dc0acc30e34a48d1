"""The export job: an engine folder with graphs, prompt, golden pairs, parity and manifest.

Imports sources, graphs, mllm, encoders.
"""
