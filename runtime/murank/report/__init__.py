"""The report of a re-ranking: one page of HTML without script, to read, to print, to hand on.

Imports checks, files, images, rerank, sheet.
"""

from murank.report.changed_queries import Pictures, changed_rows
from murank.report.report_page import ReportFacts, report_html, write_report

__all__ = ["Pictures", "ReportFacts", "changed_rows", "report_html", "write_report"]
