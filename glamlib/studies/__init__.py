"""The studies: what is compared with what, on which data, at which size.

Variants differ in the model alone (with legends also in the number of facts). A profile changes sizes, steps, seeds
and which variants run, never code paths.
"""

from glamlib.errors import lookup, one_of
from glamlib.studies.paper import ADE20K, CITYSCAPES
from glamlib.studies.scenes import (
    CONTEXT,
    DECODERS,
    LEGEND,
    LEGEND_MIXERS,
    MIXERS,
    MIXERS_48,
    MIXERS_96,
    RELEASE,
)
from glamlib.studies.streets import (
    CAMVID,
    CAMVID_IMAGENET,
    CAMVID_TINY,
    NEIGHBOURS,
    NEIGHBOURS_TINY,
)
from glamlib.studies.study import Study
from glamlib.studies.volumes import VOLUMES_BRAINS, VOLUMES_CUES, VOLUMES_HIPPOCAMPUS

PROFILES = ("quick", "cpu", "night", "gpu", "paper")  # in the order of their evidence

_SCENES = (CONTEXT, LEGEND, LEGEND_MIXERS, DECODERS, MIXERS, MIXERS_48, MIXERS_96, RELEASE)
_STREETS = (CAMVID, CAMVID_TINY, CAMVID_IMAGENET, NEIGHBOURS, NEIGHBOURS_TINY)
_OTHERS = (VOLUMES_CUES, VOLUMES_HIPPOCAMPUS, VOLUMES_BRAINS, ADE20K, CITYSCAPES)
STUDIES: dict[str, Study] = {study.name: study for study in (*_SCENES, *_STREETS, *_OTHERS)}


def find_study(name: str) -> Study:
    """Return a study by name; InputError that lists the studies otherwise."""
    return lookup("study", name, STUDIES)


def check_profile(name: str) -> str:
    """Return a profile's name; InputError that lists the profiles otherwise."""
    if name not in PROFILES:
        raise one_of("profile", name, PROFILES)
    return name
