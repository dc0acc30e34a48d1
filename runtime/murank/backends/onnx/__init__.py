"""Graphs run by onnxruntime."""
