"""A run's parameters: what is refused and how it is said, and that every study's table gives runs that can be run."""

import json
import math
from dataclasses import FrozenInstanceError

import pytest
import yaml

from glamlib import InputError
from glamlib.studies import PROFILES, STUDIES, check_profile, find_study
from glamlib.studies.parameters import RunParameters, notebook_parameters
from glamlib.training.tasks import check_run
from glamlib.zoo import model_config

RUN = {
    **{"study": "context", "variant": "swin", "seed": 0, "profile": "quick", "model": "swin_nano_linear"},
    **{"dataset": "scenes", "steps": 20, "batch_size": 4, "lr": 0.003},
}
PAIRS = [(study, profile) for study in STUDIES for profile in STUDIES[study].profiles]


def refused(values: dict, *needles: str) -> None:
    with pytest.raises(InputError) as caught:
        RunParameters.from_dict(RUN | values)
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
    refused(yaml.safe_load("lr: 1e-3"), "lr='1e-3': must be a number at least 0 (in YAML write 1.0e-3, not 1e-3)")
    assert RunParameters.from_dict(RUN | yaml.safe_load("lr: 1.0e-3")).lr == 0.001
    with pytest.raises(InputError, match=r"seed='1': must be a whole number from 0 to 4294967295$"):
        RunParameters.from_dict(RUN | {"seed": "1"})


@pytest.mark.parametrize(
    ("name", "values", "allowed"),
    [
        ("seed", [True, 1.0, -1], "a whole number from 0 to"),
        ("warmup_steps", [-1], "a whole number at least 0"),
        ("workers", [-1, 10**6], "a whole number from 0 to 256"),
        ("steps", [0], "a whole number at least 1"),
        ("batch_size", [0], "a whole number at least 1"),
        ("threads", [0], "a whole number at least 1"),
        ("checkpoint_every", [0], "a whole number at least 1"),
        ("lr", [True, None, -0.1, math.nan, math.inf], "a number at least 0"),
        ("weight_decay", [-0.1, math.nan, math.inf], "a number at least 0"),
        ("clip_norm", [-1.0, math.nan, math.inf], "a number at least 0"),
        ("compile", [1], "true or false"),
        ("overrides", [[]], "a mapping"),
        ("data", ["{}"], "a mapping"),
        ("model", [3], "a string"),
        ("precision", ["fp16"], "one of fp32, bf16"),
        ("device", ["gpu"], "one of cpu, cuda, auto"),
        ("decay", ["all"], "one of matrices, released"),
    ],
)
def test_bad_values_name_themselves_and_what_is_allowed(name: str, values: list[object], allowed: str) -> None:
    for value in values:
        refused({name: value}, f"parameter {name}={value!r}: must be {allowed}")


def test_unknown_and_missing_names() -> None:
    refused({"learning_rate": 0.1}, "unknown parameter 'learning_rate'", "allowed: ", *RUN, "clip_norm", "data")
    with pytest.raises(InputError, match="missing parameter: seed, lr"):
        RunParameters.from_dict({key: value for key, value in RUN.items() if key not in ("lr", "seed")})


SCENES = {"train": 4, "test": 2}
SPLITS = {"train": "train", "test": "test"}
CROP = {"crop_size": [64, 64]}
STREETS = {"dataset": "camvid", "data": SPLITS, "augment": CROP}
VOLUMES = {"dataset": "brains", "data": SPLITS, "augment": {"patch_size": [16, 16, 16]}, "model": "nnformer_nano"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"study": "../x", "data": SCENES}, "parameter study='../x': must be a string of letters, digits"),
        ({"variant": "", "data": SCENES}, "parameter variant='': must be a string of letters"),
        ({"seed": 2**32, "data": SCENES}, "parameter seed=4294967296: must be a whole number from 0 to 4294967295"),
        ({"dataset": "scene", "data": SCENES}, "unknown dataset 'scene'; allowed: scenes, cue_volumes, "),
        ({"data": {"test": 2}}, "missing option of data: train"),
        ({"data": {"train": [4], "test": 2}}, "option of data train=[4]: must be a whole number at least 1"),
        ({"data": SCENES | {"train": 0}}, "option of data train=0: must be a whole number at least 1"),
        ({"data": SCENES | {"size": "64"}}, "option of data size='64': must be a whole number"),
        ({"data": SCENES | {"size": 5}}, "size=5: must be a whole number from 16 to"),
        ({"data": SCENES | {"sise": 64}}, "unknown option of data 'sise'; allowed: train, test, val, size, num_shapes"),
        (STREETS | {"data": SPLITS | {"size": 5}}, "option of data size=5: must be a list (a whole number"),
        (STREETS | {"data": SPLITS | {"train": 5}}, "option of data train=5: must be a string"),
        (STREETS | {"data": SPLITS | {"limit": 0}}, "option of data limit=0: must be a whole number at least 1"),
        (STREETS | {"data": SPLITS | {"limit": "2"}}, "option of data limit='2': must be a whole"),
        (STREETS | {"augment": {"flip": 0.5}}, "missing option of augment: crop_size"),
        (STREETS | {"augment": {"crop_size": [64]}}, "option of augment crop_size=[64]: must be a list"),
        (STREETS | {"augment": CROP | {"flop": 1}}, "unknown option of augment 'flop'; allowed: crop"),
        (STREETS | {"augment": CROP | {"jitter": "no"}}, "option of augment jitter='no': must be true"),
        (STREETS | {"augment": CROP | {"flip": 2}}, "option of augment flip=2: must be a number from 0 to 1"),
        (STREETS | {"model": "nnformer_nano"}, "model 'nnformer_nano': cannot be used on camvid, which"),
        (STREETS | {"overrides": {"depth": 2}}, "unknown override for swin_nano_linear: 'depth'; allowed: "),
        (VOLUMES | {"model": "swin_nano_linear"}, "model 'swin_nano_linear': cannot be used on brains, which"),
        (VOLUMES | {"augment": {}}, "missing option of augment: patch_size, because volumes differ in size"),
        (VOLUMES | {"augment": {"patch_size": [16, 16]}}, "option of augment patch_size=[16, 16]: must be a list"),
        (VOLUMES | {"data": SPLITS | {"sides": 1}}, "option of data sides=1: must be true or false"),
        (VOLUMES | {"data": SPLITS | {"size": [9, 9]}}, "unknown option of data 'size'; allowed: train"),
        (VOLUMES | {"dataset": "synapse", "data": SPLITS | {"organs": 13.0}}, "organs=13.0: must be one of 13, 8"),
        (VOLUMES | {"evaluate": {"flip": True}}, "evaluate={'flip': True}: of images alone"),
    ],
)
def test_bad_options_are_one_line_before_anything_is_built(values: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_run(RunParameters.from_dict(RUN | values))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def fake_globals(**values: object) -> dict[str, object]:
    """What a notebook's ``globals()`` holds after its first two cells: imports, IPython's names, and the parameters."""
    ipython = {"_i1": "seed = 1", "_": "", "In": ["", "seed = 1"], "Out": {}, "exit": object(), "quit": object()}
    imports = {"math": math, "InputError": InputError, "notebook_parameters": notebook_parameters}
    return {"__name__": "__main__", "__builtins__": {}} | ipython | imports | values


KINDS = {"seed": int, "lr": float, "overrides": dict, "results": str}


def test_notebook_parameters_leave_out_what_a_cell_does_not_set() -> None:
    values = {"seed": 3, "lr": 1, "overrides": {"depths": [2]}, "results": "results"}
    found = notebook_parameters(fake_globals(**values), KINDS)
    assert found == values
    assert type(found["lr"]) is float


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ({"sede": 4}, "unknown parameter 'sede'; allowed: seed, lr, overrides, results"),  # what papermill lets pass
        ({"lr": "1e-3"}, "lr='1e-3': must be a number"),
        ({"seed": True}, "seed=True: must be a whole number"),
        ({"overrides": None}, "overrides=None: must be a mapping"),
    ],
)
def test_notebook_parameters_refuse(change: dict, needle: str) -> None:
    values = {"seed": 3, "lr": 0.1, "overrides": {}, "results": "results"} | change
    with pytest.raises(InputError, match=needle):
        notebook_parameters(fake_globals(**values), KINDS)
    with pytest.raises(InputError, match="missing parameter: lr, results"):
        notebook_parameters(fake_globals(seed=3, overrides={}), KINDS)


def test_a_notebook_names_some_parameters_and_has_others_in_more() -> None:
    namespace = fake_globals(**RUN, more={"clip_norm": 2.0}, results="results")
    assert RunParameters.from_notebook(namespace, results=str) == RunParameters.from_dict(RUN | {"clip_norm": 2.0})
    with pytest.raises(InputError, match="unknown parameter 'clip'; allowed: study"):
        RunParameters.from_notebook(fake_globals(**RUN, more={"clip": 2.0}, results="results"), results=str)


@pytest.mark.parametrize(("study_name", "profile"), PAIRS)
def test_every_study_gives_runs_that_can_be_run(study_name: str, profile: str) -> None:
    study = find_study(study_name)
    runs = study.runs(profile)
    assert len({(run.study, run.variant, run.seed, run.profile) for run in runs}) == len(runs)
    assert len(runs) == study.profiles[profile].seeds * len(study.variants)
    for run in runs:
        assert (run.study, run.profile) == (study_name, profile)
        check_run(run)
        assert run.warmup_steps < run.steps
        json.dumps(run.to_dict())
    assert [run.variant for run in runs[: len(study.variants)]] == list(study.variants)  # whole sets, seed by seed
    assert {run.seed for run in study.runs(profile, seeds=2)} == {0, 1}


@pytest.mark.parametrize(("study_name", "profile"), PAIRS)
def test_variants_differ_in_the_model_and_own_data_alone(study_name: str, profile: str) -> None:
    study = find_study(study_name)
    assert study.baseline in study.variants
    models, others = [], []
    for variant in study.variants:
        values = study.run(variant, 0, profile).to_dict()
        assert values.pop("variant") == variant
        model = values.pop("model"), values.pop("overrides")
        rate = values.pop("lr") if study.variants[variant].lr else None  # of a search's candidates
        own = study.variants[variant].data  # legends of other numbers of keys
        values["data"] = {name: value for name, value in values["data"].items() if name not in own}
        models.append((model_config(model[0], **model[1]), rate, tuple(own.items())))
        others.append(values)
    assert all(values == others[0] for values in others)
    assert len(set(models)) == len(models)  # no variant is another under a second name
    assert len({variant.label for variant in study.variants.values()}) == len(models)


def test_full_attention_is_one_window_of_the_whole_map() -> None:
    whole = [
        (study.run(variant, 0, profile), study.profiles[profile].data["size"])
        for study in STUDIES.values()
        for variant, entry in study.variants.items()
        for profile in study.profiles
        if entry.overrides.get("window_size") == "map"
    ]
    assert whole
    for run, size in whole:
        config = model_config(run.model, **run.overrides)
        assert config.window_size * config.patch_size == size


def test_unknown_studies_variants_and_profiles_list_what_there_is() -> None:
    with pytest.raises(
        InputError, match="unknown study 'contxt'; allowed: context, legend, legend_grid, legend_mixers, dec"
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
