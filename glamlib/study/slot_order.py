"""Which runs a short slot on a lent machine takes first: the most telling ones."""

import json
from pathlib import Path

from .parameters import RunParameters
from .places import run_folder
from .study import Study

# Pairs that answer the paper's claims come first, with all their seeds: an interval needs them. "": the whole study.
_FIRST = (
    ("camvid_imagenet", ("swin", "glam_10")),
    ("camvid_tiny", ("swin", "glam_10")),
    ("volumes_brains", ("nnformer", "glam_10")),
    ("context", ("swin", "tokens_2", "glam_1", "glam_10")),
    ("camvid_tiny", ()),
    ("camvid_imagenet", ()),
    ("volumes_brains", ()),
    ("context", ()),
    ("mixers", ()),
)


def in_order(studies: list[Study], profile: str, seeds: int | None = None) -> list[RunParameters]:
    """Return all runs of some studies, the most telling first; studies that `_FIRST` does not name come last."""
    by_name = {study.name: study.runs(profile, seeds) for study in studies}
    groups = [*_FIRST, *((study.name, ()) for study in studies)]
    ordered: list[RunParameters] = []
    for name, variants in groups:
        ordered += [run for run in by_name.get(name, []) if not variants or run.variant in variants]
    return list({(run.study, run.variant, run.seed): run for run in ordered}.values())


def has_record(run: RunParameters, results: list[Path]) -> bool:
    """Tell whether one of the results folders holds a run's record, of these very parameters."""
    for folder in results:
        try:
            held = json.loads((run_folder(folder, run) / "record.json").read_text())["parameters"]
            if RunParameters.from_dict(held) == run:
                return True
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
        ):  # none, or one that is not whole (InputError is a ValueError)
            continue
    return False
