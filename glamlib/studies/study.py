"""What a study is: a question, variants that differ in the model, and profiles, the sizes at which all of them run."""

import csv
import json
import tomllib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from glamlib.errors import InputError, lookup
from glamlib.studies.parameters import RunParameters


@dataclass(frozen=True)
class Variant:
    """One row of a study's table: a label for readers, a model's name and its overrides.

    The override "window_size": "map" makes one window cover the whole map: full attention. ``data``: its own options.
    """

    label: str
    model: str
    overrides: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)


def _variants(wanted: list[str]) -> dict[str, Variant]:
    """Return the variants of ``variants.csv`` by name: all of a study, or single ones ("STUDY.VARIANT")."""
    with Path(__file__).with_name("variants.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if line[0] != "#"))
    variants = {}
    for row in (row for row in rows if {row["study"], f"{row['study']}.{row['variant']}"} & set(wanted)):
        options = with_changes({}, row["overrides"].split())
        variants[row["variant"]] = Variant(row["label"], row["model"], options, data=options.pop("data", {}))
    return variants


def with_changes(values: dict[str, object], changes: Iterable[str]) -> dict[str, object]:
    """Return parameters with NAME=VALUEs, or NAME.ENTRY=VALUEs of dicts; values are JSON, or else strings."""
    values = dict(values)
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"{change!r}: must be NAME=VALUE")
        with suppress(ValueError):  # a string
            value = json.loads(value)
        whole, dot, entry = name.partition(".")
        held = values.get(whole, {})
        values |= {whole: held | {entry: value}} if dot and isinstance(held, dict) else {name: value}
    return values


@dataclass(frozen=True)
class Profile:
    """A study's size: parameters of `RunParameters`, seeds from first_seed on (more of some), variants (empty: all)."""

    data: dict
    parameters: dict
    augment: dict = field(default_factory=dict)
    seeds: int = 1
    first_seed: int = 0
    more_seeds: dict[str, int] = field(default_factory=dict)
    variants: Sequence[str] = ()


@dataclass(frozen=True)
class Study:
    """A question, the variants that answer it, and the profiles it can be asked at.

    Attributes:
        baseline: the variant that the others are compared with.
        metric: what is compared: "miou", of legend scenes "right_given_found", of volumes "dice".
        looks: how many looks at the results there are, if seeds are added after a look; the last one counts, too.
        needs_weights: runs start from ImageNet weights, and wait for their files (`glamlib.runs.places.imagenet_file`).
    """

    name: str
    question: str
    dataset: str
    baseline: str
    overrides: dict
    variants: dict[str, Variant]
    profiles: dict[str, Profile]
    metric: str = "miou"
    looks: int = 1
    needs_weights: bool = False

    def run(self, variant: str, seed: int, profile: str) -> RunParameters:
        """Return the parameters of one run; InputError for an unknown variant or profile."""
        chosen = lookup(f"variant of study {self.name}:", variant, self.variants)
        size = lookup(f"profile of study {self.name}:", profile, self.profiles)
        overrides = self.overrides | chosen.overrides
        if overrides.get("window_size") == "map":
            overrides["window_size"] = size.data["size"] // 4  # pixels to patches
        values = {"study": self.name, "variant": variant, "seed": seed, "profile": profile, "dataset": self.dataset}
        values |= {"model": chosen.model, "overrides": overrides, "data": size.data | chosen.data}
        return RunParameters.from_dict(values | {"augment": size.augment} | size.parameters)

    def runs(self, profile: str, seeds: int | None = None) -> list[RunParameters]:
        """Return all runs of a profile, seed by seed, so that an interrupted study has whole sets of variants."""
        size = lookup(f"profile of study {self.name}:", profile, self.profiles)
        wanted = {name: seeds or size.more_seeds.get(name, size.seeds) for name in size.variants or self.variants}
        numbers, first = range(max(wanted.values())), size.first_seed
        return [self.run(name, first + n, profile) for n in numbers for name in wanted if n < wanted[name]]


def read_studies() -> dict[str, Study]:
    """Return the studies that ``studies.toml`` declares, by name."""
    tables = tomllib.loads(Path(__file__).with_name("studies.toml").read_text(encoding="utf-8"))
    sizes = {name: _resolved(tables["sizes"], name) for name in tables["sizes"]}
    studies = {}
    for name in tables["studies"]:
        table = {"name": name, "overrides": {}, "variants": [name]} | _resolved(tables["studies"], name)
        profiles = {profile: Profile(**sizes[size]) for profile, size in table.pop("sizes").items()}
        studies[name] = Study(**table | {"variants": _variants(table["variants"]), "profiles": profiles})
    return studies


def _resolved(tables: dict[str, dict], name: str) -> dict:
    """Return a table with what it takes over from the one that it is "like"; "sizes" are never taken over."""
    table = dict(tables[name])
    whole = _resolved(tables, table.pop("like")) if "like" in table else {}
    for key, value in table.items():
        merges = isinstance(value, dict) and key != "sizes"
        whole[key] = whole.get(key, {}) | value if merges else value
    return whole
