"""Whether results folders hold a run's record. Nothing here needs torch: it is asked at every `make`."""

import json
from pathlib import Path

from .parameters import RunParameters
from .places import run_folder


def held_record(run: RunParameters, results: list[Path]) -> dict | None:
    """Return a run's record, of these very parameters, from the first of the folders that has one; None if none has."""
    for folder in results:
        try:
            record = json.loads((run_folder(folder, run) / "record.json").read_text())
            if RunParameters.from_dict(record["parameters"]) == run:
                return record
        except (OSError, ValueError, KeyError, TypeError):
            continue  # none, or one that is not whole (InputError is a ValueError)
    return None
