"""An engine's answers: features, mu and rankings, in time where asked; what it keeps of images.

Imports files, images, folder, backends.
"""
