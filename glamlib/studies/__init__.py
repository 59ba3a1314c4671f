"""The studies: what is compared with what, on which data, at which size.

Variants differ in the model alone (with legends also in the number of facts). A profile changes sizes, steps, seeds
and which variants run, never code paths. ``studies.toml``, ``variants.csv`` and ``claims.csv`` declare them.
"""

from glamlib.errors import lookup
from glamlib.studies.study import Study, read_studies

PROFILES = ("quick", "cpu", "night", "gpu", "paper")  # in the order of their evidence
FETCHED = ("camvid", "brains", "hippocampus")  # data that make fetches into GLAM_DATA
STUDIES: dict[str, Study] = read_studies()


def find_study(name: str) -> Study:
    """Return a study by name; InputError that lists the studies otherwise."""
    return lookup("study", name, STUDIES)


def check_profile(name: str) -> str:
    """Return a profile's name; InputError that lists the profiles otherwise."""
    return lookup("profile", name, dict(zip(PROFILES, PROFILES, strict=True)))
