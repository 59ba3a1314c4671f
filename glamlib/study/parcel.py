"""Records in one file, for the way from a lent machine to the repository; and out of it, into a results folder.

    python -m glamlib.study.parcel PARCEL.zip RESULTS

A parcel holds what a results folder does below ``runs/`` (records, histories, pictures) and ``speed/`` (groups of the
speed benchmark): numbers and small arrays, no weights.
"""

import argparse
import io
import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np

from glamlib.errors import InputError

from .files import write_whole
from .parameters import RunParameters
from .places import run_folder

LIMIT = 16 * 2**20  # bytes
_NAMES = re.compile(r"runs/\w+/\w[\w.]*/seed-\d+/(record\.json|history\.csv|pictures\.npz)|speed/[\w-]+\.json")
_NEEDED = {"parameters", "metrics", "classes", "cost", "train_seconds", "device", "versions", "commit", "dirty"}


def pack(results: Path, parcel: Path) -> int:
    """Write all runs and speed groups below ``results`` into ``parcel``; returns its size in bytes.

    Where the whole would be over `LIMIT`, the pictures stay behind; the records alone are far below it.

    Raises:
        InputError: the parcel cannot be written, or is over the limit even so.
    """
    names = sorted(file.relative_to(results).as_posix() for file in results.rglob("*"))
    names = [name for name in names if _NAMES.fullmatch(name)]
    # of a run that is not done, what is there stays behind
    names = [name for name in names if name.startswith("speed/") or _record_beside(name) in names]
    for chosen in (names, [name for name in names if not name.endswith(".npz")]):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in chosen:
                archive.write(results / name, name)
        if content.tell() <= LIMIT:
            write_whole(parcel, content.getvalue())
            return content.tell()
    raise InputError(f"{parcel}: {content.tell()} bytes; allowed: {LIMIT}")


def unpack(parcel: Path, results: Path) -> list[Path]:
    """Put a parcel's files among ``results``, each run's record last. Returns the records' paths, sorted.

    Everything is checked before anything is written. A run that has a record already gets the parcel's.

    Raises:
        InputError: not a parcel; a file that does not belong into one; a record that is not the run's that its place
            names, or is not whole.
    """
    files = _read(parcel)
    records = sorted(name for name in files if name.endswith("record.json"))
    for name in records:
        _check_record(f"{parcel}: {name}", name, files[name])
    for name in files:
        if name.startswith("runs/") and _record_beside(name) not in files:
            raise InputError(f"{parcel}: {name} has no record beside it")
    for name in [*(name for name in files if name not in records), *records]:
        write_whole(results / name, files[name])
    return [results / name for name in records]


def _record_beside(name: str) -> str:
    return f"{name.rpartition('/')[0]}/record.json"


def _read(parcel: Path) -> dict[str, bytes]:
    """Return the content of every file of a parcel by name."""
    try:
        with zipfile.ZipFile(parcel) as archive:
            files = {}
            for entry in archive.infolist():
                if not _NAMES.fullmatch(entry.filename):
                    raise InputError(f"{parcel}: {entry.filename} does not belong into a parcel")
                if entry.file_size > LIMIT:
                    raise InputError(f"{parcel}: {entry.filename} is of {entry.file_size} bytes; allowed: {LIMIT}")
                files[entry.filename] = archive.read(entry)
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise InputError(f"{parcel}: not a parcel ({error})") from None
    for name, content in files.items():
        try:
            if name.endswith(".json"):
                json.loads(content)
            elif name.endswith(".npz"):
                with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                    dict(arrays)
        except (ValueError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise InputError(f"{parcel}: {name} is damaged ({type(error).__name__})") from None
    return files


def _check_record(where: str, name: str, content: bytes) -> None:
    """Raise InputError unless a record is whole and of the run that its place names."""
    record = json.loads(content)
    missing = _NEEDED - record.keys() if isinstance(record, dict) else _NEEDED
    if missing:
        raise InputError(f"{where}: not a run's record ({', '.join(sorted(missing))} missing)")
    run = RunParameters.from_dict(record["parameters"])
    own = (run_folder(Path(), run) / "record.json").as_posix()
    if own != name:
        raise InputError(f"{where}: is the record of {own}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parcel", type=Path)
    parser.add_argument("results", type=Path)
    options = parser.parse_args()
    try:
        records = unpack(options.parcel, options.results)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"{len(records)} records in {options.results}")


if __name__ == "__main__":
    main()
