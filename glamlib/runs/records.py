"""Run records: one folder a run, its record.json written last and atomically. Nothing else writes or reads them."""

import io
import json
import math
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from glamlib.cost.count import Cost
from glamlib.errors import InputError
from glamlib.evaluation.processes import is_main
from glamlib.files import write_whole
from glamlib.runs.places import CHECKPOINT, run_folder
from glamlib.runs.provenance import commit, device_name, peak_memory_mib, process_seconds, versions
from glamlib.studies.parameters import RunParameters
from glamlib.training.loop import resolve_device


def open_run_folder(results: Path, run: RunParameters) -> Path:
    """Return the run's folder, made and writable; to be called before anything costly.

    Raises:
        InputError: it cannot be written, or it holds a record of another study, variant, seed or profile.
    """
    folder = run_folder(results, run)
    record = folder / "record.json"
    if record.exists():
        held = read_record(record)["parameters"]
        for name in ("study", "variant", "seed", "profile"):
            if held.get(name) != getattr(run, name):
                raise InputError(
                    f"{record}: a record of {name} {held.get(name)!r}, this run's is {getattr(run, name)!r}; "
                    "use another results folder"
                )
    if is_main():
        write_whole(folder / ".writable", b"")
        (folder / ".writable").unlink()
    return folder


def write_record(
    folder: Path,
    run: RunParameters,
    *,
    metrics: dict[str, object],
    classes: tuple[str, ...],
    cost: Cost,
    history: list[dict[str, float]],
    train_seconds: float,
    arrays: dict[str, np.ndarray],
) -> Path:
    """Write history.csv, pictures.npz (``arrays``, small) and, last, record.json; remove the checkpoint.

    Returns the record's path. Of several processes, the main one writes.
    """
    path = folder / "record.json"
    if not is_main():
        return path
    write_whole(folder / "history.csv", pd.DataFrame(history).to_csv(index=False))
    if arrays:
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)
        write_whole(folder / "pictures.npz", packed.getvalue())
    device = resolve_device(run.device)
    record = {
        "parameters": run.to_dict(),
        "metrics": metrics,
        "classes": list(classes),
        "cost": asdict(cost),
        "train_seconds": train_seconds,
        "seconds": process_seconds(),
        "images_per_second": run.steps * run.batch_size / train_seconds,
        "peak_memory_mib": peak_memory_mib(device),
        "device": device_name(device),
        "versions": versions(),
        **commit(),
    }
    write_whole(path, json.dumps(without_nan(record), indent=1) + "\n")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return path


def without_nan(value: object) -> object:
    """Return ``value`` with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_record(path: Path) -> dict[str, object]:
    """Return a record; InputError that names the file if it is none."""
    try:
        record = json.loads(path.read_text())
        missing = {"parameters", "metrics", "cost"} - record.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a run's record ({type(error).__name__}: {error})") from None
    if missing:
        raise InputError(f"{path}: not a run's record ({', '.join(sorted(missing))} missing)")
    return record


def read_records(results: Path, study: str) -> list[dict[str, object]]:
    """Return all records of a study below ``results``, in order of variant and seed; empty where there are none."""
    files = sorted((results / "runs" / study).glob("*/seed-*/record.json"), key=os.fspath)
    return [read_record(file) for file in files]


def read_pictures(results: Path, study: str, variant: str) -> dict[str, np.ndarray] | None:
    """Return the arrays that a variant's first seed kept beside its record, or None if there are none."""
    path = results / "runs" / study / variant / "seed-0" / "pictures.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def read_histories(results: Path, study: str, variant: str) -> list[pd.DataFrame]:
    """Return the history (step, loss, lr) of every seed of a variant."""
    files = sorted((results / "runs" / study / variant).glob("seed-*/history.csv"), key=os.fspath)
    return [pd.read_csv(file) for file in files]
