"""Contact sheets: the candidate matches of some queries before and after re-ranking, to look at.

Imports checks, machine, files, images, datasets, rerank.
"""

from murank.sheet.drawing import draw_sheet, write_sheet
from murank.sheet.sheet_rows import Cell, SheetRow, choose_queries, count_changes, rows_of

__all__ = [
    "Cell",
    "SheetRow",
    "choose_queries",
    "count_changes",
    "draw_sheet",
    "rows_of",
    "write_sheet",
]
