"""The studies: what is compared with what, on which data, at which size. Their tables are the only place that says so:
`scene_studies`, `street_studies`, `volume_studies`, and `recipe`, the paper's own.

A study is a set of variants that differ from each other in the model alone (those of a schedule, in the learning rate
too); a profile is the size at which all of them run: it changes sizes, steps and seeds, never code paths. Nothing here
needs torch, so planning is quick.
"""

from glamlib.errors import one_of
from glamlib.studies.paper import ADE20K, CITYSCAPES
from glamlib.studies.scenes import CONTEXT, DECODERS, MIXERS, MIXERS_48, MIXERS_96, RELEASE
from glamlib.studies.streets import (
    CAMVID,
    CAMVID_ARCHITECTURES,
    CAMVID_IMAGENET,
    CAMVID_IMAGENET_SCHEDULE,
    CAMVID_TINY,
    CAMVID_TINY_SCHEDULE,
    NEIGHBOURS,
)
from glamlib.studies.study import Study
from glamlib.studies.volumes import VOLUMES_BRAINS, VOLUMES_CUES, VOLUMES_HIPPOCAMPUS

PROFILES = ("quick", "cpu", "gpu", "paper")

_ALL = (
    CONTEXT,
    DECODERS,
    MIXERS,
    MIXERS_48,
    MIXERS_96,
    RELEASE,
    CAMVID,
    CAMVID_ARCHITECTURES,
    CAMVID_TINY_SCHEDULE,
    CAMVID_TINY,
    CAMVID_IMAGENET_SCHEDULE,
    CAMVID_IMAGENET,
    NEIGHBOURS,
    VOLUMES_CUES,
    VOLUMES_HIPPOCAMPUS,
    VOLUMES_BRAINS,
    ADE20K,
    CITYSCAPES,
)
STUDIES: dict[str, Study] = {study.name: study for study in _ALL}


def find_study(name: str) -> Study:
    """Return a study by name; InputError that lists the studies otherwise."""
    if name not in STUDIES:
        raise one_of("study", name, STUDIES)
    return STUDIES[name]


def check_profile(name: str) -> str:
    """Return a profile's name; InputError that lists the profiles otherwise."""
    if name not in PROFILES:
        raise one_of("profile", name, PROFILES)
    return name
