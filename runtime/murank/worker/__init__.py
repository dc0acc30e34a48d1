"""One thread that owns an engine: queries by deadline and together, ingest below them.

Imports checks, images, engine, gallery.
"""

from murank.worker.worker import Worker

__all__ = ["Worker"]
