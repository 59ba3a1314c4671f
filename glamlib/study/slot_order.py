"""Which runs a short slot on a lent machine takes first: the most telling ones."""

from .parameters import RunParameters
from .study import Study

# Pairs that answer the paper's claims come first, with all their seeds: an interval needs them; before them the
# learning rate they are trained with. (): the whole study.
_FIRST = (
    ("camvid_imagenet_schedule", ()),
    ("camvid_imagenet", ("swin", "glam_10")),
    ("camvid_tiny_schedule", ()),
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
