"""Run records: one folder a run, its record.json written last and atomically. Nothing else writes or reads them."""

import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from glamlib.cost.count import Cost
from glamlib.data.layout import reading
from glamlib.errors import InputError
from glamlib.evaluation.evaluate import is_main
from glamlib.files import check_writable, write_whole
from glamlib.runs.places import CHECKPOINT, computing_digest, made_by, run_folder
from glamlib.studies.parameters import RunParameters
from glamlib.studies.study import Study
from glamlib.training.checkpoint import NO_MATTER, changes, set_aside
from glamlib.training.loop import resolve_device
from glamlib.training.tasks import check_run

_ALIKE = ("seed", *NO_MATTER)  # may differ between the runs of one mean
_BESIDE = ("history.csv", "pictures.npz", "best.safetensors", "last.safetensors")
_LOCKS: dict[Path, FileLock] = {}  # a run's folder is locked until its record is written or the process ends
_PATIENCE = 10  # seconds in which the loader processes of a run that was killed end, too


def open_run_folder(results: Path, run: RunParameters) -> Path:
    """Return the run's folder, made, writable and locked, before anything costly; InputError where that fails."""
    check_run(run)
    folder = run_folder(results, run)
    if is_main():
        check_writable(folder / "record.json")
        lock = _LOCKS.setdefault(folder.resolve(), FileLock(folder / ".lock"))
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            raise InputError(f"{folder}: another process is at work on this run; wait for it or stop it") from None
    return folder


def write_record(
    folder: Path, run: RunParameters, *, history: list[dict], arrays: dict[str, np.ndarray], cost: Cost, **about: object
) -> Path:
    """Write history.csv, pictures.npz (``arrays``, small) and, last, record.json; remove the checkpoint and unlock.

    The record also holds what it is given ``about`` the run: data, metrics, classes, train_seconds. What is there of
    another run is `put_aside`. Returns the record's path. Of several processes, the main one writes.
    """
    path = folder / "record.json"
    if not is_main():
        return path
    record = {"parameters": run.to_dict(), "code": computing_digest(), "cost": asdict(cost)}
    record |= about | made_by(resolve_device(run.device))
    put_aside(folder, record)
    write_whole(folder / "history.csv", pd.DataFrame(history).to_csv(index=False))
    if arrays:
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)
        write_whole(folder / "pictures.npz", packed.getvalue())
    write_whole(path, json_text(record))
    (folder / CHECKPOINT).unlink(missing_ok=True)
    if lock := _LOCKS.pop(folder.resolve(), None):
        lock.release(force=True)
    return path


def put_aside(folder: Path, record: dict[str, object], always: bool = False) -> None:
    """Rename a record of other parameters or data than ``record`` to record-old-1.json, the files beside it likewise.

    With ``always``, that of a run which is done once more, too: its weights are about to be overwritten.
    """
    path, why = folder / "record.json", to_do(folder, record) or "done once more"
    if is_main() and path.exists() and (always or differences(read_record(path), record, ("code", *_ALIKE))):
        kept = set_aside(path, *(folder / name for name in _BESIDE))
        print(f"{folder}: {why}: the old record is kept as {kept.name}", flush=True)


def to_do(folder: Path, now: dict[str, object]) -> str:
    """Return why a run is to be done, or "" if it is not: it has no record, or one of another identity than ``now``."""
    if not (folder / "record.json").exists():
        return "no record yet"
    record = read_record(folder / "record.json")
    commit = (record.get("commit") or "unknown")[:7]
    changed = f"the code changed since commit {commit}" if record.get("code") != now["code"] else ""
    return "; ".join(filter(None, (differences(record, now, ("code", *_ALIKE)), changed)))


def identity(record: dict[str, object], but: Iterable[str] = _ALIKE) -> dict[str, object]:
    """Return what decides a record's numbers, by name: parameters, data and code, without the names in ``but``."""
    made_by = record["parameters"] | {"data": record.get("data"), "code": record.get("code")}
    return {name: value for name, value in json.loads(json.dumps(made_by)).items() if name not in but}


def differences(record: dict[str, object], other: dict[str, object], but: Iterable[str] = _ALIKE) -> str:
    """Return how the identities of two records differ, "steps 12 -> 1, code 0a.. -> 1b..", or an empty string."""
    return ", ".join(changes(identity(record, but), identity(other, but)))


def comparable(results: Path, study: Study) -> tuple[list[dict[str, object]], list[str]]:
    """Return a study's records that belong in one table, in its order, and a line for each other that says why not.

    Runs of one variant must have one `identity`. Different variants may differ in the model, and in the data where each
    has its own. The largest group of those that have a run of seed 0, which runs first, is kept.
    """
    records = [one for one in read_records(results, study.name) if one["parameters"]["variant"] in study.variants]
    differ = ["data"] if any(variant.data for variant in study.variants.values()) else []
    own = ("variant", "model", "overrides", *differ, *_ALIKE)

    def largest(records: list[dict[str, object]], but: Iterable[str]) -> list[dict[str, object]]:
        keys = [json.dumps(identity(record, but), sort_keys=True) for record in records]
        newest = [key for record, key in zip(records, keys, strict=True) if record["parameters"]["seed"] == 0]
        most = max(newest or keys, key=keys.count, default="")
        return [record for record, key in zip(records, keys, strict=True) if key == most]

    alike = largest(records, own)
    groups = {name: [one for one in alike if one["parameters"]["variant"] == name] for name in study.variants}
    by_variant = {name: largest(group, _ALIKE) for name, group in groups.items()}
    kept, others = list(chain(*by_variant.values())), []
    for record in (record for record in records if record not in kept):
        variant, seed = (record["parameters"][name] for name in ("variant", "seed"))
        same = by_variant.get(variant)
        why = differences(same[0], record) if same else differences(kept[0], record, own)
        others.append(f"{variant}/seed-{seed} ({why})")
    return kept, others


def json_text(value: object) -> str:
    """Return a value as JSON, with null for NaN and each list of numbers in one line."""
    text = json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=1)
    return re.sub(r'\[[^][{}"]*\]', lambda numbers: " ".join(numbers[0].split()), text) + "\n"


def read_record(path: Path) -> dict[str, object]:
    """Return a record; InputError that names the file if it is none."""
    with reading(path, "a run's record"):
        record = json.loads(path.read_text())
        if missing := {"parameters", "metrics", "cost"} - record.keys():
            raise KeyError(*sorted(missing))
        return record


def read_records(results: Path, study: str) -> list[dict[str, object]]:
    """Return all records of a study below ``results``, in order of variant and seed; not those of copied folders."""
    files = (results / "runs" / study).glob("*/seed-*/record.json")
    files = sorted(files, key=lambda file: (file.parts[-3], len(file.parts[-2]), file.parts[-2]))  # seed 10 after 9
    found = [(file.parent.parts[-2:], read_record(file)) for file in files]
    return [one for place, one in found if place == (one["parameters"]["variant"], f"seed-{one['parameters']['seed']}")]


def read_pictures(results: Path, study: str, variant: str) -> dict[str, np.ndarray] | None:
    """Return the arrays that a variant's seed 0 kept beside its record, or None if there are none."""
    path = results / "runs" / study / variant / "seed-0" / "pictures.npz"
    return dict(np.load(path)) if path.exists() else None


def read_histories(results: Path, study: Study) -> dict[str, list[pd.DataFrame]]:
    """Return the histories (step, loss, lr) of a study's `comparable` runs by variant, in order of seed."""
    histories = defaultdict(list)
    for run in (RunParameters.from_dict(record["parameters"]) for record in comparable(results, study)[0]):
        histories[run.variant].append(pd.read_csv(run_folder(results, run) / "history.csv"))
    return histories
