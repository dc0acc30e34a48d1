"""What runs a graph: onnxruntime or TensorRT plans, behind one protocol.

Imports checks, machine, files, images, folder.
"""
