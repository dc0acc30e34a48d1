"""One query at a time against a gallery in memory, with an answer in a given time.

Imports checks, images, datasets, folder, engine, rerank, and the kernels.
"""

from murank.search.gallery_features import embed_images
from murank.search.online_gallery import check_parameters
from murank.search.search_result import SearchResult
from murank.search.search_settings import (
    DEFAULT_CANDIDATES,
    SEARCH_METHODS,
    SearchMethod,
    SearchSettings,
)
from murank.search.searcher import Searcher

__all__ = [
    "DEFAULT_CANDIDATES",
    "SEARCH_METHODS",
    "SearchMethod",
    "SearchResult",
    "SearchSettings",
    "Searcher",
    "check_parameters",
    "embed_images",
]
