"""Any image encoder as an engine's encoder graph: ONNX files, Hugging Face folders.

Imports sources.
"""
