"""Contact sheets: the candidate matches of some queries before and after re-ranking, to look at.

Imports checks, machine, files, images, rerank.
"""

from murank.sheet.drawing import CROP, QUERY, Crops, draw_sheet, write_sheet
from murank.sheet.sheet_rows import (
    Cell,
    SheetRow,
    change_of,
    choose_queries,
    count_changes,
    counted_ranks,
    first_match,
    rows_of,
)

__all__ = [
    "CROP",
    "QUERY",
    "Cell",
    "Crops",
    "SheetRow",
    "change_of",
    "choose_queries",
    "count_changes",
    "counted_ranks",
    "draw_sheet",
    "first_match",
    "rows_of",
    "write_sheet",
]
