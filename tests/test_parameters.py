"""A run's parameters: what is refused and how it is said, and that every study's table gives runs that can be run."""

import json
import math
from dataclasses import FrozenInstanceError

import pytest
import yaml

from glamlib import InputError
from glamlib.studies import PROFILES, STUDIES, check_profile, find_study
from glamlib.studies.parameters import RunParameters, notebook_parameters
from glamlib.zoo import model_config

RUN = {
    "study": "context",
    "variant": "swin",
    "seed": 0,
    "profile": "quick",
    "model": "swin_nano_linear",
    "dataset": "scenes",
    "steps": 20,
    "batch_size": 4,
    "lr": 0.003,
}
PAIRS = [(study, profile) for study in STUDIES for profile in STUDIES[study].profiles]


def refused(values: dict, *needles: str) -> None:
    with pytest.raises(InputError) as caught:
        RunParameters.from_dict(values)
    for needle in needles:
        assert needle in str(caught.value)


def test_a_run_goes_through_json_and_yaml_unchanged() -> None:
    run = RunParameters.from_dict(RUN | {"overrides": {"depths": [2]}, "lr": 1})
    assert type(run.lr) is float  # an int may stand for it
    assert RunParameters.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    assert RunParameters.from_dict(yaml.safe_load(yaml.safe_dump(run.to_dict()))) == run
    with pytest.raises(FrozenInstanceError):
        run.lr = 2.0


def test_what_yaml_reads_as_a_string_is_explained() -> None:
    refused(RUN | yaml.safe_load("lr: 1e-3"), "lr='1e-3'", "must be float, not str", "in YAML write 1.0e-3, not 1e-3")
    assert RunParameters.from_dict(RUN | yaml.safe_load("lr: 1.0e-3")).lr == 0.001


@pytest.mark.parametrize(
    ("name", "value", "needle"),
    [
        ("seed", True, "must be int, not bool"),
        ("seed", 1.0, "must be int, not float"),
        ("seed", "1", "must be int, not str"),
        ("seed", -1, "must not be negative"),
        ("steps", 0, "must be at least 1"),
        ("batch_size", 0, "must be at least 1"),
        ("threads", 0, "must be at least 1"),
        ("checkpoint_every", 0, "must be at least 1"),
        ("lr", True, "must be float, not bool"),
        ("lr", None, "must be float, not NoneType"),
        ("lr", -0.1, "must not be negative"),
        ("weight_decay", -0.1, "must not be negative"),
        ("warmup_steps", -1, "must not be negative"),
        ("clip_norm", -1.0, "must not be negative"),
        ("workers", -1, "must not be negative"),
        ("overrides", [], "must be dict, not list"),
        ("data", "{}", "must be dict, not str"),
        ("model", 3, "must be str, not int"),
        ("precision", "fp16", "allowed: fp32, bf16"),
        ("device", "gpu", "allowed: cpu, cuda, auto"),
    ],
)
def test_bad_values_name_themselves_and_what_is_allowed(name: str, value: object, needle: str) -> None:
    refused(RUN | {name: value}, name, repr(value), needle)


def test_a_string_hint_is_given_for_numbers_only() -> None:
    with pytest.raises(InputError) as caught:
        RunParameters.from_dict(RUN | {"seed": "1"})
    assert "YAML" not in str(caught.value)


def test_unknown_and_missing_names() -> None:
    refused(RUN | {"learning_rate": 0.1}, "unknown parameter 'learning_rate'", "allowed: ", *RUN, "clip_norm", "data")
    refused({k: v for k, v in RUN.items() if k not in ("lr", "seed")}, "missing parameters: seed, lr")


def fake_globals(**values: object) -> dict[str, object]:
    """What a notebook's ``globals()`` holds after its first two cells: imports, IPython's names, and the parameters."""
    return {
        "__name__": "__main__",
        "__builtins__": {},
        "_i1": "seed = 1",
        "_": "",
        "In": ["", "seed = 1"],
        "Out": {},
        "exit": object(),
        "quit": object(),
        "get_ipython": fake_globals,
        "math": math,
        "InputError": InputError,
        "notebook_parameters": notebook_parameters,
        **values,
    }


KINDS = {"seed": int, "lr": float, "overrides": dict, "results": str}


def test_notebook_parameters_leave_out_what_a_cell_does_not_set() -> None:
    values = {"seed": 3, "lr": 1, "overrides": {"depths": [2]}, "results": "results"}
    found = notebook_parameters(fake_globals(**values), KINDS)
    assert found == values
    assert type(found["lr"]) is float


@pytest.mark.parametrize(
    ("change", "needles"),
    [
        (
            {"sede": 4},
            ("unknown parameter 'sede'", "allowed: seed, lr, overrides, results"),
        ),  # what papermill lets pass
        ({"lr": "1e-3"}, ("lr='1e-3'", "must be float", "1.0e-3")),
        ({"seed": True}, ("seed=True", "must be int, not bool")),
        ({"overrides": None}, ("overrides=None", "must be dict")),
    ],
)
def test_notebook_parameters_refuse(change: dict, needles: tuple[str, ...]) -> None:
    values = {"seed": 3, "lr": 0.1, "overrides": {}, "results": "results"} | change
    with pytest.raises(InputError) as caught:
        notebook_parameters(fake_globals(**values), KINDS)
    for needle in needles:
        assert needle in str(caught.value)


def test_notebook_parameters_say_what_is_missing() -> None:
    with pytest.raises(InputError, match="missing parameters: lr, results"):
        notebook_parameters(fake_globals(seed=3, overrides={}), KINDS)


@pytest.mark.parametrize(("study_name", "profile"), PAIRS)
def test_every_study_gives_runs_that_can_be_run(study_name: str, profile: str) -> None:
    study = find_study(study_name)
    runs = study.runs(profile)
    assert len({(run.study, run.variant, run.seed, run.profile) for run in runs}) == len(runs)
    assert len(runs) == study.profiles[profile].seeds * len(study.variants)
    for run in runs:
        assert (run.study, run.profile) == (study_name, profile)
        model_config(run.model, **run.overrides)  # raises for what no model takes
        assert run.warmup_steps < run.steps
        json.dumps(run.to_dict())
    assert [run.variant for run in runs[: len(study.variants)]] == list(study.variants)  # whole sets, seed by seed
    assert {run.seed for run in study.runs(profile, seeds=2)} == {0, 1}


@pytest.mark.parametrize(("study_name", "profile"), PAIRS)
def test_variants_differ_in_the_model_alone(study_name: str, profile: str) -> None:
    study = find_study(study_name)
    assert study.baseline in study.variants
    models, others = [], []
    for variant in study.variants:
        values = study.run(variant, 0, profile).to_dict()
        assert values.pop("variant") == variant
        model = values.pop("model"), values.pop("overrides")
        rate = values.pop("lr") if study.variants[variant].lr else None  # of a schedule's candidates
        models.append((model_config(model[0], **model[1]), rate))
        others.append(values)
    assert all(values == others[0] for values in others)
    assert len(set(models)) == len(models)  # no variant is another under a second name
    labels = [variant.label for variant in study.variants.values()]
    assert len(set(labels)) == len(labels)


def test_full_attention_is_one_window_of_the_whole_map() -> None:
    whole = [
        (study.run(variant, 0, profile), study.profiles[profile].run["data"]["size"])
        for study in STUDIES.values()
        for variant, entry in study.variants.items()
        for profile in study.profiles
        if entry.whole_map_window
    ]
    assert whole
    for run, size in whole:
        config = model_config(run.model, **run.overrides)
        assert config.window_size * config.patch_size == size


def test_unknown_studies_variants_and_profiles_list_what_there_is() -> None:
    with pytest.raises(
        InputError, match="unknown study 'contxt'; allowed: context, decoders, mixers, mixers_48, mixers_96, release, "
    ):
        find_study("contxt")
    study = find_study("context")
    with pytest.raises(InputError, match=r"variant of study context: 'glam'; allowed: swin, .*glam_10"):
        study.run("glam", 0, "cpu")
    with pytest.raises(InputError, match=r"profile of study context: 'huge'; allowed: quick, cpu"):
        study.run("swin", 0, "huge")
    with pytest.raises(InputError, match=r"unknown profile 'huge'; allowed: quick, cpu, gpu, paper"):
        check_profile("huge")
    assert set(PROFILES) >= {profile for _, profile in PAIRS}


@pytest.mark.parametrize("name", ["lr", "weight_decay", "clip_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_must_be_finite(name: str, value: float) -> None:
    refused(RUN | {name: value}, name)
