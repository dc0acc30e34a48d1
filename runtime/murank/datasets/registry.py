"""The data sets by name."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from murank._exceptions import InputError
from murank.datasets.clothes_changing import LTCC_LAYOUT, PRCC_LAYOUT, read_ltcc, read_prcc
from murank.datasets.grid import GRID_LAYOUT, read_grid
from murank.datasets.ilids import ILIDS_LAYOUT, read_ilids
from murank.datasets.image_lists import Dataset
from murank.datasets.known_names import letters_of
from murank.datasets.market_style import (
    CUHK03_NP_LAYOUT,
    DUKEMTMC_LAYOUT,
    MARKET1501_LAYOUT,
    OCCLUDED_DUKE_LAYOUT,
    VERI776_LAYOUT,
    read_cuhk03_np,
    read_dukemtmc,
    read_market1501,
    read_occluded_duke,
    read_veri776,
)
from murank.datasets.msmt17 import MSMT17_LAYOUT, read_msmt17
from murank.datasets.prid import PRID_LAYOUT, read_prid
from murank.datasets.viper import VIPER_LAYOUT, read_viper
from murank.datasets.without_cameras import (
    CUHK_SYSU_LAYOUT,
    VEHICLEID_LAYOUT,
    read_cuhk_sysu,
    read_vehicleid,
)
from murank.files.urls import refuse_url

_PARTS_OF_VEHICLEID = (800, 1600, 2400)


@dataclass(frozen=True)
class DatasetReader:
    """How one data set is read."""

    read: Callable[..., Dataset]  # of the root folder, and of its options by keyword
    layout: str  # what the root folder should hold, in words
    option: str | None = None  # "split" or "boxes", where the data set has one


DATASETS: Mapping[str, DatasetReader] = MappingProxyType(
    {
        "market1501": DatasetReader(read_market1501, MARKET1501_LAYOUT),
        "dukemtmc": DatasetReader(read_dukemtmc, DUKEMTMC_LAYOUT),
        "msmt17": DatasetReader(read_msmt17, MSMT17_LAYOUT),
        "cuhk03-np": DatasetReader(read_cuhk03_np, CUHK03_NP_LAYOUT, "boxes"),
        "viper": DatasetReader(read_viper, VIPER_LAYOUT, "split"),
        "grid": DatasetReader(read_grid, GRID_LAYOUT, "split"),
        "prid": DatasetReader(read_prid, PRID_LAYOUT, "split"),
        "ilids": DatasetReader(read_ilids, ILIDS_LAYOUT, "split"),
        "occluded-duke": DatasetReader(read_occluded_duke, OCCLUDED_DUKE_LAYOUT),
        "cuhk-sysu": DatasetReader(read_cuhk_sysu, CUHK_SYSU_LAYOUT),
        "ltcc": DatasetReader(read_ltcc, LTCC_LAYOUT),
        "prcc": DatasetReader(read_prcc, PRCC_LAYOUT),
        "prcc-same-clothes": DatasetReader(partial(read_prcc, queries="B"), PRCC_LAYOUT),
        "veri776": DatasetReader(read_veri776, VERI776_LAYOUT),
        **{
            f"vehicleid-{count}": DatasetReader(
                partial(read_vehicleid, vehicles=count), VEHICLEID_LAYOUT, "split"
            )
            for count in _PARTS_OF_VEHICLEID
        },
    }
)


def dataset_name(name: str) -> str:
    """Return a name as `DATASETS` has it, whatever its case and hyphens; another as it is."""
    letters = {letters_of(known): known for known in DATASETS} | {"dukemtmcreid": "dukemtmc"}
    return letters.get(letters_of(name), name)


def load_dataset(
    name: str, root: str | os.PathLike[str], *, split: int = 0, boxes: str | None = None
) -> Dataset:
    """Return query and gallery of the test side of a data set, labelled, in a fixed order.

    Parameters
    ----------
    name
        One of `DATASETS`; case and hyphens do not matter.
    root
        The folder of the data set, or the one above it.
    split
        Which of the random halves; for viper, grid, prid, ilids and those of vehicleid (the others
        have one: 0).
    boxes
        For cuhk03-np: "detected" (the default) or "labeled".

    Raises
    ------
    InputError
        A folder or file is missing or its name cannot be read, or an option does not fit.
    """
    refuse_url(root)
    name = dataset_name(name)
    if name not in DATASETS:
        raise InputError(f"no data set is called {name!r}; there are {', '.join(DATASETS)}")
    reader = DATASETS[name]
    given: dict[str, object] = {}
    if split != 0:
        given["split"] = split
    if boxes is not None:
        given["boxes"] = boxes
    for option, value in given.items():
        if option != reader.option:
            raise InputError(f"{name} has no choice of {option}; {value!r} does not apply to it")
    try:
        return reader.read(Path(root), **given)
    except OSError as error:
        raise InputError(f"{error.filename or root}: {error.strerror or error}") from error
