"""Pack a set of volumes for a machine without nibabel: ``python -m glamlib.data.volumes.pack DATASET SOURCE OUT.zip``.

SOURCE is the data set's folder. Put OUT.zip into the folder that GLAM_DATA names, as DATASET.zip: it is read where
there is no folder DATASET, and gives the same items. What is in it is said in `glamlib.data.volumes.packed`.
"""

import argparse
import io
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from glamlib.data.volumes.case import Case
from glamlib.data.volumes.check import SETS
from glamlib.data.volumes.nifti import class_numbers
from glamlib.data.volumes.packed import FORMAT, TABLE, VERSION, differences, unsigned
from glamlib.errors import InputError, one_of

_WHOLE = tuple(np.dtype(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8"))


def pack_volumes(dataset: str, source: Path, out: Path) -> None:
    """Read every case of a data set in ``source`` and write them as a pack, whole or not at all.

    Args:
        dataset: a name in `SETS`.
        source: the data set's folder.
        out: the file to write, NAME.zip.

    Raises:
        InputError: unknown data set, data that are missing or damaged, a label value that is not known, or a file that
            cannot be written.
    """
    if dataset not in SETS:
        raise one_of("data set of volumes", dataset, SETS)
    if out.suffix != ".zip":
        raise InputError(f"{out}: a pack must be named NAME.zip")
    if not source.is_dir():
        raise InputError(f"{source}: no such folder")
    find, labels, _ = SETS[dataset]
    layout = find(source)
    cases = {case.name: case for split in layout.splits for case in layout.select(split)}
    table = {"format": FORMAT, "version": VERSION, "dataset": dataset, "splits": layout.splits, "cases": {}}
    temporary = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
            for name, case in cases.items():
                table["cases"][name] = _write_case(archive, case, labels.numbers)
            _write(archive, TABLE, json.dumps(table, indent=1).encode())
        os.chmod(temporary, 0o644)  # mkstemp makes files for one user only
        os.replace(temporary, out)
        temporary = None
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _write_case(archive: zipfile.ZipFile, case: Case, numbers: dict[int, int]) -> dict[str, object]:
    """Write a case's two arrays; return its entry in the table."""
    image, label, spacing = case.read()
    class_numbers(case.label, label, numbers)  # refuses what reading would
    try:
        stored = smallest(image)
        left = differences(stored.view(unsigned(stored.dtype)))
    except TypeError as problem:
        raise InputError(f"{case.image}: {problem}") from None
    for folder, array in (("images", left), ("labels", label.astype(np.uint8))):
        content = io.BytesIO()
        np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
        _write(archive, f"{folder}/{case.name}.npy", content.getvalue())
    types = {"stored": stored.dtype.name, "dtype": image.dtype.name}
    return {"shape": list(image.shape), "spacing": list(spacing), **types}


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Write a member with no date, so that the same data make the same bytes."""
    member = zipfile.ZipInfo(name)
    member.compress_type = zipfile.ZIP_LZMA
    archive.writestr(member, content)


def smallest(values: np.ndarray) -> np.ndarray:
    """Return ``values`` in the smallest whole type that holds them all exactly; in their own if none does."""
    low, high = values.min(), values.max()
    for dtype in _WHOLE:
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max and dtype.itemsize <= values.dtype.itemsize:
            whole = values.astype(dtype)
            return whole if np.array_equal(whole, values) else values.astype(values.dtype.newbyteorder("="))
    return values.astype(values.dtype.newbyteorder("="))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m glamlib.data.volumes.pack",
        description="Pack a set of volumes into one file that is read without nibabel.",
    )
    parser.add_argument("dataset", metavar="DATASET", help=", ".join(SETS))
    parser.add_argument("source", metavar="SOURCE", type=Path, help="the data set's folder")
    parser.add_argument(
        "out", metavar="OUT.zip", type=Path, help="the file to write; as GLAM_DATA/DATASET.zip it is found"
    )
    chosen = parser.parse_args(arguments)
    try:
        pack_volumes(chosen.dataset, chosen.source, chosen.out)
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
