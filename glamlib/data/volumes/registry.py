"""The data sets of volumes by name."""

import inspect
from os import PathLike
from pathlib import Path

from glamlib.data.registry import data_root
from glamlib.data.volumes import brains, hippocampus, synapse
from glamlib.data.volumes.dataset import VolumeDataset
from glamlib.data.volumes.packed import is_pack
from glamlib.errors import InputError, one_of

VOLUMES = {
    "hippocampus": (hippocampus.Hippocampus, hippocampus.SOURCE),
    "brains": (brains.Brains, brains.SOURCE),
    "synapse": (synapse.Synapse, synapse.SOURCE),
}


def load_volumes(name: str, split: str, *, root: str | PathLike[str] | None = None, **options: object) -> VolumeDataset:
    """Return the split of the data set ``name``; its files are read when items are asked for (see `InMemoryVolumes`).

    The data lie in ``root``, by default in the sub-folder ``name`` of the folder that GLAM_DATA names, or as a pack
    (`glamlib.data.volumes.packed`) in ``name``.zip there. Options are
    those of the data set's class: ``spacing`` of all, ``sides`` of brains, ``organs`` of synapse. Raises InputError for
    an unknown name, split or option, and for data that are missing or malformed.
    """
    if name not in VOLUMES:
        raise one_of("data set of volumes", name, VOLUMES)
    make, source = VOLUMES[name]
    allowed = [p.name for p in inspect.signature(make).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in allowed:
            raise one_of(f"option of {name}", option, allowed)
    root = _data_root(name) if root is None else Path(root)
    if root is None or not (root.is_dir() or is_pack(root)):
        missing = "GLAM_DATA is not set" if root is None else f"{root}: no such folder"
        raise InputError(
            f"dataset {name!r}: {missing}; set GLAM_DATA to the folder that holds {name}/, which is {source}"
        )
    return make(root, split, **options)


def has_volumes(name: str) -> bool:
    """Tell whether `load_volumes` finds ``name`` without being told a root; InputError for an unknown name."""
    if name not in VOLUMES:
        raise one_of("data set of volumes", name, VOLUMES)
    root = _data_root(name)
    return root is not None and (root.is_dir() or is_pack(root))


def _data_root(name: str) -> Path | None:
    """Return the folder of ``name`` in the folder that GLAM_DATA names, or its pack if only that is there."""
    root = data_root(name)
    pack = None if root is None else root.with_name(f"{name}.zip")
    return pack if pack is not None and pack.is_file() and not root.is_dir() else root
