"""A run's parameters: what is refused and how it is said, and that every study's table gives runs that can be run."""

import json
import math
from collections import Counter
from dataclasses import FrozenInstanceError

import pytest
import yaml
from conftest import refused

from glamlib import InputError
from glamlib.studies import STUDIES, check_profile, find_study
from glamlib.studies.parameters import RunParameters, notebook_parameters
from glamlib.training.tasks import check_run
from glamlib.zoo import model_config

RUN = {
    **{"study": "context", "variant": "swin", "seed": 0, "profile": "quick", "model": "swin_nano_linear"},
    **{"dataset": "scenes", "steps": 20, "batch_size": 4, "lr": 0.003},
}
PAIRS = [(study, profile) for study in STUDIES for profile in STUDIES[study].profiles]


def test_a_run_goes_through_json_and_yaml_unchanged():
    run = RunParameters.from_dict(RUN | {"overrides": {"depths": [2]}, "lr": 1})
    assert type(run.lr) is float  # an int may stand for it
    assert RunParameters.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    assert RunParameters.from_dict(yaml.safe_load(yaml.safe_dump(run.to_dict()))) == run
    with pytest.raises(FrozenInstanceError):
        run.lr = 2.0
    with refused("missing parameter: seed, lr"):
        RunParameters.from_dict({key: value for key, value in RUN.items() if key not in ("lr", "seed")})


SCENES = {"train": 4, "test": 2}
SPLITS = {"train": "train", "test": "test"}
CROP = {"crop_size": [64, 64]}
STREETS = {"dataset": "camvid", "data": SPLITS, "augment": CROP}
PATCH = {"patch_size": [16, 16, 16]}
VOLUMES = {"dataset": "brains", "data": SPLITS, "augment": PATCH, "model": "nnformer_nano"}


def drawn(dataset: str = "scenes", **options: object) -> dict:
    return {"dataset": dataset, "data": SCENES | options}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"study": "../x", "data": SCENES}, "parameter study='../x': must be a string of letters, digits"),
        ({"seed": 2**32}, "parameter seed=4294967296: must be a whole number from 0 to 4294967295"),
        ({"seed": True}, "parameter seed=True: must be a whole number from 0 to"),
        ({"lr": math.nan}, "parameter lr=nan: must be a number at least 0"),
        (yaml.safe_load("lr: 1e-3"), "lr='1e-3': must be a number at least 0 (in YAML write 1.0e-3, not 1e-3)"),
        ({"precision": "fp16"}, "parameter precision='fp16': must be one of fp32, bf16"),
        ({"learning_rate": 0.1}, "unknown parameter 'learning_rate'; allowed: study, variant, seed, "),
        ({"dataset": "scene", "data": SCENES}, "unknown dataset 'scene'; allowed: scenes, cue_volumes, "),
        ({"data": {"test": 2}}, "missing option of data: train"),
        (drawn(size=15), "option of data size=15: must be a whole number from 16 to 4096"),
        (drawn(num_cues=7), "num_cues=7: must be a whole number from 2 to 6"),
        (drawn(cue_size=33), "cue_size=33: must be at most half the size, 64"),
        (drawn(min_distance=30, max_distance=30), "max_distance=30: must be above min_distance=30, or 0"),
        (drawn("legend_scenes", window=8), "num_keys=8: must be at most 4, for which there is room"),
        (drawn("legend_scenes", size=48, spread=True, num_keys=10), "num_keys=10: must be at most 9"),
        (STREETS | {"augment": {"flip": 0.5}}, "missing option of augment: crop_size"),
        (STREETS | {"augment": CROP | {"scale_range": [2.0, 0.5]}}, "scale_range=(2.0, 0.5): must be (low, high) with"),
        (STREETS | {"augment": CROP | {"long_short": [512, 2048]}}, "long_short=(512, 2048): must be (long, short)"),
        ({"evaluate": {"crops": [8, 8]}}, "unknown option of evaluate 'crops'; allowed: mode, crop, stride, scales, f"),
        ({"evaluate": {"mode": "slide", "crop": [8, 8]}}, "mode 'slide' needs a stride"),
        ({"evaluate": {"mode": "slide", "crop": [8, 8], "stride": [8, 9]}}, "stride=[8, 9]: must not exceed the crop"),
        ({"evaluate": {"resize": [512, 2048]}}, "resize=[512, 2048]: must be [long, short]"),
        ({"evaluate": {"resize": [8, 8], "size": [8, 8]}}, "resize=[8, 8]: cannot be combined with a size"),
        (STREETS | {"model": "nnformer_nano"}, "model 'nnformer_nano': cannot be used on camvid, which"),
        (STREETS | {"overrides": {"depth": 2}}, "unknown override for swin_nano_linear: 'depth'; allowed: "),
        (VOLUMES | {"model": "swin_nano_linear"}, "model 'swin_nano_linear': cannot be used on brains, which"),
        (VOLUMES | {"augment": {}}, "missing option of augment: patch_size, because volumes differ in size"),
        (VOLUMES | {"augment": PATCH | {"scale": [1.2, 0.8]}}, "scale=(1.2, 0.8): must be (low, high) with low"),
        (VOLUMES | {"dataset": "synapse", "data": SPLITS | {"organs": 13.0}}, "organs=13.0: must be one of 13, 8"),
        (VOLUMES | {"evaluate": {"flip": True}}, "evaluate={'flip': True}: of images alone"),
    ],
)
def test_bad_options_are_one_line_before_anything_is_built(values, message):
    with refused(message):
        check_run(RunParameters.from_dict(RUN | values))


def fake_globals(**values: object) -> dict[str, object]:
    """What a notebook's ``globals()`` holds after its first two cells: imports, IPython's names, and the parameters."""
    ipython = {"_i1": "seed = 1", "_": "", "In": ["", "seed = 1"], "Out": {}, "exit": object(), "quit": object()}
    imports = {"math": math, "InputError": InputError, "notebook_parameters": notebook_parameters}
    return {"__name__": "__main__", "__builtins__": {}} | ipython | imports | values


KINDS = {"seed": int, "lr": float, "overrides": dict, "results": str}


def test_notebook_parameters_leave_out_what_a_cell_does_not_set():
    values = {"seed": 3, "lr": 1, "overrides": {"depths": [2]}, "results": "results"}
    found = notebook_parameters(fake_globals(**values), KINDS)
    assert found == values
    assert type(found["lr"]) is float
    for change, message in (
        ({"sede": 4}, "unknown parameter 'sede'; allowed: seed, lr, overrides, results"),  # what papermill lets pass
        ({"seed": True}, "seed=True: must be a whole number"),
    ):
        with pytest.raises(InputError, match=message):
            notebook_parameters(fake_globals(**values | change), KINDS)
    with pytest.raises(InputError, match="missing parameter: lr, results"):
        notebook_parameters(fake_globals(seed=3, overrides={}), KINDS)


def test_a_notebook_names_some_parameters_and_has_others_in_more():
    namespace = fake_globals(**RUN, more={"clip_norm": 2.0}, results="results")
    assert RunParameters.from_notebook(namespace, results=str) == RunParameters.from_dict(RUN | {"clip_norm": 2.0})
    with pytest.raises(InputError, match="unknown parameter 'clip'; allowed: study"):
        RunParameters.from_notebook(fake_globals(**RUN, more={"clip": 2.0}, results="results"), results=str)


@pytest.mark.parametrize(("study_name", "profile"), PAIRS)
def test_every_study_gives_runs_that_can_be_run(study_name, profile):
    study = find_study(study_name)
    runs, size = study.runs(profile), study.profiles[profile]
    variants = list(size.variants or study.variants)
    assert len({(run.study, run.variant, run.seed, run.profile) for run in runs}) == len(runs)
    assert Counter(run.variant for run in runs) == {name: size.more_seeds.get(name, size.seeds) for name in variants}
    for run in runs:
        assert (run.study, run.profile) == (study_name, profile)
        check_run(run)
        assert run.warmup_steps < run.steps
        json.dumps(run.to_dict())
    assert [run.variant for run in runs[: len(variants)]] == variants  # whole sets, seed by seed
    assert {run.seed - size.first_seed for run in study.runs(profile, seeds=2)} == {0, 1}


@pytest.mark.parametrize(("study_name", "profile"), PAIRS)
def test_variants_differ_in_the_model_and_own_data_alone(study_name, profile):
    study = find_study(study_name)
    assert study.baseline in study.variants
    models, others = [], []
    for variant in study.profiles[profile].variants or study.variants:
        values = study.run(variant, 0, profile).to_dict()
        assert values.pop("variant") == variant
        model = values.pop("model"), values.pop("overrides")
        own = study.variants[variant].data  # legends of other numbers of keys
        values["data"] = {name: value for name, value in values["data"].items() if name not in own}
        models.append((model_config(model[0], **model[1]), tuple(own.items())))
        others.append(values)
    assert all(values == others[0] for values in others)
    assert len(set(models)) == len(models)  # no variant is another under a second name
    assert len({variant.label for variant in study.variants.values()}) == len(study.variants)


def test_full_attention_is_one_window_of_the_whole_map():
    for profile in STUDIES["context"].profiles:
        run = STUDIES["context"].run("full", 0, profile)
        config = model_config(run.model, **run.overrides)
        assert config.window_size * config.patch_size == run.data["size"]


def test_unknown_studies_variants_and_profiles_list_what_there_is():
    study = find_study("context")
    for call, message in (
        (lambda: find_study("contxt"), "unknown study 'contxt'; allowed: context, context_times, "),
        (lambda: study.run("glam", 0, "cpu"), "variant of study context: 'glam'; allowed: swin, .*glam_10"),
        (lambda: study.run("swin", 0, "huge"), "profile of study context: 'huge'; allowed: quick, cpu"),
        (lambda: check_profile("huge"), "unknown profile 'huge'; allowed: quick, cpu, night, gpu, paper"),
    ):
        with pytest.raises(InputError, match=message):
            call()
