"""Which images are ranked: data sets of the field, plain folders, .csv lists; none is opened."""

from murank.datasets._lists import Dataset, ImageList
from murank.datasets._plain import list_images
from murank.datasets._registry import DATASETS, DatasetReader, load_dataset

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetReader",
    "ImageList",
    "list_images",
    "load_dataset",
]
