"""The engine folder: what export wrote, checked, hashed and read once. No graph is run here.

Imports checks, files, images, prompt.
"""
