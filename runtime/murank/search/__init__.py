"""One query at a time against a gallery in memory, with an answer in a given time."""

from murank.search._embedding import embed_images
from murank.search._gallery import check_parameters
from murank.search._result import SearchMatch, SearchResult
from murank.search._searcher import Searcher
from murank.search._settings import (
    DEFAULT_CANDIDATES,
    SEARCH_METHODS,
    SearchMethod,
    SearchSettings,
)

__all__ = [
    "DEFAULT_CANDIDATES",
    "SEARCH_METHODS",
    "SearchMatch",
    "SearchMethod",
    "SearchResult",
    "SearchSettings",
    "Searcher",
    "check_parameters",
    "embed_images",
]
