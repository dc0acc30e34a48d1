"""The MLLM as two ONNX graphs: vision tower and decoder.

Imports sources.
"""
