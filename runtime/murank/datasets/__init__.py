"""Which images are ranked: data sets of the field, plain folders, lists; no image is opened.

Imports checks, files.
"""

from murank.datasets.folder import list_images
from murank.datasets.image_lists import Dataset, ImageList
from murank.datasets.registry import DATASETS, load_dataset

__all__ = [
    "DATASETS",
    "Dataset",
    "ImageList",
    "list_images",
    "load_dataset",
]
