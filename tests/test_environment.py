"""pyproject.toml, requirements.lock and environment.yml say the same, and it is what is installed here."""

import re
import tomllib
from importlib.metadata import version
from itertools import chain

import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_every_declared_dependency_is_pinned_within_its_range_and_installed():
    lines = [line for line in (REPOSITORY / "requirements.lock").read_text().splitlines() if line and line[0] != "#"]
    unpinned = [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert unpinned == [], "no exact pins that every index has"
    pins = {canonicalize_name(name): pinned for name, pinned in (line.split("==") for line in lines)}
    extras = PROJECT["optional-dependencies"].values()
    for requirement in map(Requirement, chain(PROJECT["dependencies"], *extras)):
        pinned = pins.get(canonicalize_name(requirement.name))
        assert pinned, f"{requirement.name} is not in requirements.lock"
        assert pinned in requirement.specifier, f"{requirement} does not admit the pin {pinned}"
        assert Version(version(requirement.name)).public == pinned, requirement.name


def test_conda_installs_the_lock_and_no_other_version():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    names = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    assert {name.partition("=")[0] for name in names} == {"python", "pip", "make", "git"}
    (python,) = (name.partition("=")[2] for name in names if name.startswith("python="))
    assert Version(python) in SpecifierSet(PROJECT["requires-python"])
