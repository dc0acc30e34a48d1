"""Benchmarks: an engine under load, as MLPerf's scenarios have it, and two reports compared.

Images on disk -> searcher -> samples -> figures by section (cached, uncached) -> a report.

Imports machine, files, images, datasets, folder, backends, engine, rerank, search, sheet, and the
kernels.
"""
