"""What runs a graph: onnxruntime, OpenVINO or TensorRT plans, behind one protocol.

Imports checks, machine, files, images, folder.
"""
