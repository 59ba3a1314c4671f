"""The studies: what is compared with what, on which data, at which size.

A study is a set of variants that differ in the model alone (in a learning-rate search also in the rate, in the study of
legends also in the number of facts). A profile changes sizes, steps and seeds, never code paths.
"""

from glamlib.errors import one_of
from glamlib.studies.paper import ADE20K, CITYSCAPES
from glamlib.studies.scenes import (
    CONTEXT,
    DECODERS,
    LEGEND,
    LEGEND_GRID,
    LEGEND_MIXERS,
    MIXERS,
    MIXERS_48,
    MIXERS_96,
    RELEASE,
)
from glamlib.studies.streets import (
    CAMVID,
    CAMVID_ARCHITECTURES,
    CAMVID_IMAGENET,
    CAMVID_IMAGENET_RATES,
    CAMVID_TINY,
    CAMVID_TINY_RATES,
    NEIGHBOURS,
)
from glamlib.studies.study import Study
from glamlib.studies.volumes import VOLUMES_BRAINS, VOLUMES_CUES, VOLUMES_HIPPOCAMPUS

PROFILES = ("quick", "cpu", "gpu", "paper")

_SCENES = (CONTEXT, LEGEND, LEGEND_GRID, LEGEND_MIXERS, DECODERS, MIXERS, MIXERS_48, MIXERS_96, RELEASE)
_STREETS = (CAMVID, CAMVID_ARCHITECTURES, CAMVID_TINY_RATES, CAMVID_TINY, CAMVID_IMAGENET_RATES, CAMVID_IMAGENET)
_VOLUMES = (VOLUMES_CUES, VOLUMES_HIPPOCAMPUS, VOLUMES_BRAINS)
STUDIES: dict[str, Study] = {
    study.name: study for study in (*_SCENES, *_STREETS, NEIGHBOURS, *_VOLUMES, ADE20K, CITYSCAPES)
}


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
