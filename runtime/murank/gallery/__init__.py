"""A gallery that lives: rows come and go, are searched with a deadline, and are really erased.

Imports machine, checks, files, images, engine, rerank, and the kernels.
"""

from murank.gallery.gallery import Gallery
from murank.gallery.gallery_result import (
    AddResult,
    Erasure,
    GalleryCheck,
    GalleryMatch,
    GalleryRow,
    GallerySearchResult,
    GalleryStats,
    Related,
)
from murank.gallery.milvus import Milvus

__all__ = [
    "AddResult",
    "Erasure",
    "Gallery",
    "GalleryCheck",
    "GalleryMatch",
    "GalleryRow",
    "GallerySearchResult",
    "GalleryStats",
    "Milvus",
    "Related",
]
