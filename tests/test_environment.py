"""pyproject.toml, requirements.lock and environment.yml say the same, and it is what is installed here."""

import re
import tomllib
from importlib.metadata import version

import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version


def lock() -> dict[str, str]:
    """Return name to version of every line of the lock."""
    pins = {}
    for line in (REPOSITORY / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, pinned = line.partition("==")
            assert re.fullmatch(r"[\w.]+", pinned), f"{line!r} is no exact pin that every index has"
            pins[canonicalize_name(name)] = pinned
    return pins


def declared() -> list[Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for text in (*project["dependencies"], *(text for extra in extras for text in extra))]


def test_every_declared_dependency_is_pinned_within_its_range_and_installed() -> None:
    pins = lock()
    for requirement in declared():
        pinned = pins.get(canonicalize_name(requirement.name))
        assert pinned, f"{requirement.name} is not in requirements.lock"
        assert pinned in requirement.specifier, f"{requirement} does not admit the pin {pinned}"
        assert Version(version(requirement.name)).public == pinned, requirement.name


def test_conda_installs_the_lock_and_no_other_version() -> None:
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    names = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    assert {name.partition("=")[0] for name in names} == {"python", "pip", "make", "git"}
    (python,) = (name.partition("=")[2] for name in names if name.startswith("python="))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert Version(python) in SpecifierSet(project["requires-python"])
