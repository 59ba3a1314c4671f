"""Training and comparing models on one's own data, as their owner would: a folder in, a table and weights out."""

import json
import re
import shutil
from collections.abc import Callable
from itertools import product
from math import prod
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from conftest import refused_by_main, write_folder
from nifti_files import own_volumes, save

from glamlib.cli import main
from glamlib.data.datasets import load_volumes
from glamlib.errors import InputError
from glamlib.runs import own
from glamlib.runs.records import read_record
from glamlib.training.datasets import run_parts

COLOURS = np.array([[0, 0, 0], [200, 30, 30], [30, 200, 30]], np.uint8)
MODELS = "swin_nano_linear,glam_swin_nano_linear:num_global_tokens=2"
GLAM = "glam_swin_nano_linear-num_global_tokens-2"
FEW = ["--set", "steps=4", "batch_size=2", "device=cpu"]


def write_images(root: Path, sizes: list[tuple[int, int]]) -> Path:
    """Write images with coloured labels of the three thirds of each image."""
    random, pairs = np.random.default_rng(0), []
    for height, width in sizes:
        label = COLOURS[np.arange(height) * 3 // height][:, None].repeat(width, axis=1)
        pairs.append((label + random.integers(0, 50, label.shape, dtype=np.uint8), label))
    return write_folder(root, pairs, {"classes": ["sky", "<house|roof>", "road"], "colors": COLOURS.tolist()})


def write_volumes(root: Path, shape: tuple[int, int, int], spacing: tuple[float, ...], count: int = 8) -> Path:
    labels = {"background": 0, "tail": 3, "head": 7}
    return own_volumes(root, "nnunet", ["T1"], count, labels, shape, lambda number: spacing)


@pytest.mark.parametrize(
    ("sizes", "changes", "expected", "augment"),
    [
        # 14 of 20 are trained on; 2**20 pixels are 6.2 crops: batches of 4
        ([(360, 480)] * 20, [], {"batch_size": 4, "steps": 500, "warmup_steps": 25}, {"crop_size": [352, 480]}),
        ([(1000, 1500)] * 3, [], {"batch_size": 2}, {"crop_size": [512, 512], "long_short": [2048, 512]}),
        # the median is 100 x 200, so the short side 96
        ([(100, 200)] * 15 + [(50, 70)], [], {"batch_size": 8}, {"crop_size": [96, 192], "long_short": [384, 96]}),
        ([(100, 200)] * 20, ["steps=10", "lr=0.1"], {"steps": 10, "lr": 0.1, "validate_every": 1}, {}),
        ([(9, 9)] * 20, ["data.size=[64,128]"], {"batch_size": 8}, {"crop_size": [64, 128]}),
    ],
)
def test_defaults_follow_from_the_images(sizes, changes, expected, augment, tmp_path, capsys):
    study = own.own_study(write_images(tmp_path / "Zürich" / "my streets", sizes), None, "swin_nano_linear", changes)
    assert "Zürich/my streets" in capsys.readouterr().out  # as typed
    run = study.run("swin_nano_linear", 0, own.PROFILE)
    assert study.name == "my_streets"
    assert expected.items() <= run.to_dict().items()
    assert augment.items() <= run.augment.items()
    assert ("long_short" in run.augment) == (len(set(sizes)) > 1 or min(sizes[0]) > 512)


def test_batches_fit_into_the_memory(tmp_path, monkeypatch):
    root = write_images(tmp_path / "own", [(256, 256)] * 20)
    monkeypatch.setattr(own, "PIXELS", 8 * 256 * 256)
    for images_at_once, parts in ((9, 1), (8, 1), (4.1, 2), (2, 4), (0.1, 4)):
        memory = 2 * images_at_once * 256 * 256 * own.MEMORY[0]
        monkeypatch.setattr(own.psutil, "virtual_memory", lambda total=memory: type("", (), {"total": total}))
        run = own.own_study(root, None, "swin_nano_linear", ["device=cpu"]).run("swin_nano_linear", 0, own.PROFILE)
        assert (run.batch_size, run.accumulate) == (8, parts)
        odd = own.own_study(root, None, "swin_nano_linear", ["device=cpu", "batch_size=3"])
        assert odd.run("swin_nano_linear", 0, own.PROFILE).accumulate == 1  # of 2 images at least
        assert run.data["in_memory"] == (memory / 4 > 14 * 256 * 256 * 4)


@pytest.mark.parametrize(
    ("shape", "spacing", "rotate"),
    [((36, 50, 35), (1, 1, 1), 15), ((200, 150, 20), (1, 1, 5), 0), ((90, 90, 90), (1, 1, 1.9), 15)],
)
def test_patches_follow_from_the_volumes(shape, spacing, rotate, tmp_path):
    root = write_volumes(tmp_path / "own", shape, spacing, count=4)
    run = own.own_study(root, None, "nnformer_nano", []).run("nnformer_nano", 0, own.PROFILE)
    assert (run.batch_size, run.accumulate, run.augment["rotate"], run.validate_every) == (2, 1, rotate, 50)
    patch, size = run.augment["patch_size"], shape[::-1]  # NIfTI's axes are x, y, z
    assert all(side % 8 == 0 for side in patch)
    if prod(size) < 2**17:
        assert patch == [40, 56, 40]
    else:  # about the same share of each axis, and no side could be larger
        shares = [side / whole for side, whole in zip(patch, size, strict=True) if side > 8]
        assert max(shares) - min(shares) <= 8 / min(size)
        assert prod(patch) <= 2**18 < max(prod(patch) // side * (side + 8) for side in patch)


@pytest.mark.parametrize(("other", "rate"), [("conv_unet", 1e-3), ("swin_tiny_linear", 5e-4)])
def test_rates_go_by_the_largest_model_and_sided_images_are_not_mirrored(other, rate, tmp_path):
    root = write_images(tmp_path / "own", [(64, 64)] * 4)
    for name, flip in (("sky", None), ("left lung", 0.0)):
        table = (root / "classes.json").read_text().replace("sky", name)
        (root / "classes.json").write_text(table)
        run = own.own_study(root, None, f"swin_nano_linear,{other}", []).run(other, 0, own.PROFILE)
        assert (run.lr, run.augment.get("flip")) == (rate, flip)


def test_without_a_class_to_score_in_validation_the_last_weights_are_tested(tmp_path, capsys):
    """One case is held out, of a healthy subject: all scores are alike, and the first weights would be the best."""
    root = write_volumes(tmp_path / "own", (16, 16, 16), (1, 1, 1), count=6)
    (label,) = (item.label for item in load_volumes("volumes", "val", root=root).items)
    save(label, np.zeros((16, 16, 16)))
    for changes, warns in (([], True), (["validate_every=9"], True), (["validate_every=0", "data.val="], False)):
        study = own.own_study(root, None, "nnformer_nano", changes)
        assert study.run("nnformer_nano", 0, own.PROFILE).validate_every == 0
        assert ("no validation label holds a class to score: the last weights" in capsys.readouterr().err) == warns


def test_values_and_models_as_they_are_written():
    values = own.with_changes({"a": {"b": 1}, "c": 2}, ["a.d=[1,2]", "c=x=y", "e=1e-3"])
    assert values == {"a": {"b": 1, "d": [1, 2]}, "c": "x=y", "e": 1e-3}
    variants = own.own_variants("swin_nano_unet, glam_swin_nano_unet:num_global_tokens=[9,9]:mixer=gmsa")
    first, second = variants.items()
    assert (first[0], first[1].model, first[1].overrides) == ("swin_nano_unet", "swin_nano_unet", {})
    assert second[0] == "glam_swin_nano_unet-num_global_tokens-9-9-mixer-gmsa"
    assert second[1].overrides == {"num_global_tokens": [9, 9], "mixer": "gmsa"}
    with pytest.raises(InputError, match="swin_nano_unet is given twice"):
        own.own_variants("swin_nano_unet,glam_swin_nano_unet,swin_nano_unet")
    with pytest.raises(InputError, match=r"^'gmsa': must be NAME=VALUE"):  # and not of an option that was not given
        own.own_variants("swin_nano_unet:gmsa")


def test_compare_ends_with_a_table_and_is_done_once(tmp_path, monkeypatch, capsys):
    root, out = write_images(tmp_path / "Wälder", [(40, 48), (33, 64), (40, 48), (50, 41)] * 3), tmp_path / "out"
    command = ["compare", "--data", str(root), "--models", MODELS, "--seeds", "2", "--out", str(out), *FEW]

    done, run_one = [], own.run_one

    def interrupted(run: object, *rest: object, **more: object) -> None:
        done.append(run)
        if len(done) == 3:
            raise KeyboardInterrupt
        run_one(run, *rest, **more)

    monkeypatch.setattr(own, "run_one", interrupted)
    assert main(command) == 130
    assert capsys.readouterr().err.startswith("interrupted")
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "2 of 4 runs are finished already" in said
    monkeypatch.setattr(own, "run_one", lambda *_, **__: pytest.fail("trained"))
    assert main(command) == 0
    assert "4 of 4 runs are finished already" in capsys.readouterr().out

    runs = [(run.variant, run.seed) for run in done]
    records = {(v, s): read_record(out / f"runs/Wälder/{v}/seed-{s}/record.json") for v, s in runs}
    assert {key[0] for key in records} == {"swin_nano_linear", GLAM}
    scores = pd.Series({key: record["metrics"]["miou"] for key, record in records.items()}).unstack()
    summary = pd.read_csv(out / "tables/Wälder_summary.csv", index_col="variant")
    assert summary.loc[GLAM, "miou"] == pytest.approx(scores.loc[GLAM].mean())
    assert summary.loc[GLAM, "gain"] == pytest.approx((scores.loc[GLAM] - scores.loc["swin_nano_linear"]).mean())
    row = next(line for line in said.splitlines() if line.startswith("| glam")).split("|")
    assert re.search(r"inconclusive \((no difference|a difference of 0\.\d+) would show\)", said)  # of scores up to 1
    assert float(row[2]) == pytest.approx(scores.loc[GLAM].mean(), abs=5e-4)
    record = records[GLAM, 1]
    assert record["parameters"]["root"] == str(root.resolve())
    assert record["parameters"]["dataset"] == "folder"
    page = (out / "tables/Wälder.html").read_text()
    assert '<td style="text-align:left">&lt;house|roof&gt;</td>' in page  # in a table, and no HTML of its own
    assert page.count("data:image/webp;base64") == 3  # loss, validation scores, predictions
    for pictures in out.glob("runs/Wälder/*/seed-0/pictures.npz"):
        pictures.unlink()  # as if the first seed had failed
    assert main(command) == 0
    assert (out / "tables/Wälder.html").read_text().count("data:image/webp;base64") == 2
    said = capsys.readouterr().out
    assert (out / "tables/Wälder.md").read_text() in said
    assert main(["evaluate", str(out / f"runs/Wälder/{GLAM}/seed-1/best.safetensors"), "--device", "cpu"]) == 0
    said, err = capsys.readouterr()
    assert json.loads(said)["miou"] == pytest.approx(record["metrics"]["miou"])
    assert re.match("2 items of folder, split test; train: 8, .*; test: 2, held out of train; labels: 3 colours", err)
    assert (out / f"runs/Wälder/{GLAM}/seed-1/last.safetensors").exists()
    monkeypatch.setattr(own, "run_one", Mock(side_effect=InputError("the loss is nan")))
    assert main([*command, "lr=1"]) == 1
    assert "|" not in capsys.readouterr().out  # no former score in a table
    assert (main(command), "4 of 4 runs are finished already" in capsys.readouterr().out) == (0, True)
    for folder, number in product(("images", "labels"), range(12, 14)):  # more images: other splits
        shutil.copy(root / folder / "00.png", root / folder / f"{number}.png")
    assert main(["evaluate", str(out / f"runs/Wälder/{GLAM}/seed-1/best.safetensors"), "--device", "cpu"]) == 0
    assert re.search(r"warning: 2 of them were trained on, if images/00.png is the same", capsys.readouterr().err)


def test_train_and_compare_share_runs(tmp_path, monkeypatch, capsys):
    root, out = write_images(tmp_path / "own", [(40, 48)] * 8), str(tmp_path / "out")
    model = ["--data", str(root), "--name", "mine", "--out", out, *FEW, "loss=balanced"]
    assert main(["train", "--model", "swin_nano_linear", *model]) == 0
    *_, score, record = capsys.readouterr().out.splitlines()
    assert record == str(Path(out).resolve() / "runs/mine/swin_nano_linear/seed-0/record.json")
    assert read_record(Path(record))["parameters"]["loss"] == "balanced"
    assert score == f"miou of the test data: {read_record(Path(record))['metrics']['miou']:.3f}"
    monkeypatch.setattr("glamlib.runs.run.train", lambda *_, **__: pytest.fail("trained"))
    assert main(["train", "--model", "swin_nano_linear", "--weights", str(tmp_path / "w.safetensors"), *model]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == ["swin_nano_linear/seed-0 is finished already", score, record]
    assert (tmp_path / "w.safetensors").read_bytes() == Path(record).with_name("best.safetensors").read_bytes()
    assert main(["compare", "--models", "swin_nano_linear,nothing_else", *model]) == 2
    assert "unknown model 'nothing_else'" in capsys.readouterr().err

    def fails(*_: object, **__: object) -> None:
        raise InputError("the loss is nan")

    monkeypatch.setattr(own, "run_one", fails)
    assert main(["compare", "--models", "swin_nano_linear", "--seeds", "2", *model]) == 1
    said, err = capsys.readouterr()
    assert "1 of 2 runs are finished already" in said
    assert err == "failed: swin_nano_linear/seed-1: the loss is nan\n"
    assert "one seed" in said.partition("| swin_nano_linear")[2]


@pytest.mark.parametrize("command", [["compare", "--models"], ["train", "--weights", "w", "--model"]], ids=str)
def test_a_run_done_once_more_keeps_the_old_record_and_its_weights(command, tmp_path, monkeypatch, capsys):
    """By compare for other code, by train for weights that are gone; interrupted after the first validation."""
    data = ["--data", str(write_images(tmp_path / "own", [(40, 48)] * 8)), "--out", str(tmp_path), *FEW]
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--model", "swin_nano_linear", *data]) == 0
    folder = tmp_path / "runs/own/swin_nano_linear/seed-0"
    record, why = folder / "record.json", "done once more"
    if command[0] == "compare":
        why = f"the code changed since commit {(read_record(record)['commit'] or 'unknown')[:7]}"
        record.write_text(json.dumps(read_record(record) | {"code": "other"}))
    else:
        (folder / "best.safetensors").unlink()
    old = {f"{file.stem}-old-1{file.suffix}": file.read_bytes() for file in folder.glob("[!.]*")}

    def interrupted(*_: object, on_best: Callable[[], None], **__: object) -> None:
        on_best()
        raise KeyboardInterrupt

    monkeypatch.setattr("glamlib.runs.run.train", interrupted)
    assert main([*command, "swin_nano_linear", *data]) == 130
    assert capsys.readouterr().out.count(f"swin_nano_linear/seed-0: {why}") == 1 + (command[0] == "compare")
    assert {file.name: file.read_bytes() for file in folder.glob("*-old-*")} == old
    assert {file.name for file in folder.glob("[!.]*")} - old.keys() == {"best.safetensors"}


@pytest.mark.slow
def test_compare_on_volumes(tmp_path, capsys):
    root, out = write_volumes(tmp_path / "own", (20, 24, 16), (1, 1, 1)), tmp_path / "out"
    models = ["--models", "nnformer_nano,glam_nnformer_nano", "--seeds", "1", "--out", str(out)]
    assert main(["compare", "--data", str(root), *models, *FEW]) == 0
    said = capsys.readouterr().out
    assert "3 tail, 7 head" in said
    assert {"| tail", "| head"} <= {line[:6] for line in said.splitlines()}
    assert (out / "tables/own.html").read_text().count("data:image/webp;base64") == 3
    run = own.own_study(root, None, "nnformer_nano", []).run("nnformer_nano", 0, own.PROFILE)
    assert len(run_parts(run)["train"]) == 6


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (["compare", "--models", "nnformer_nano"], "model 'nnformer_nano': cannot be used on folder"),
        (["compare", "--models", "swin_nano_linear", "--seeds", "0"], "--seeds 0: must be at least 1"),
        (["compare", "--models", "swin_nano_linear", "--out", "FILE"], "cannot write"),
        (["compare", "--models", "swin_nano_linear", "--set", "stpes=1"], "unknown parameter 'stpes'"),
        (["compare", "--models", "swin_nano_linear", "--set", "seed=1"], "--set seed: it is given by an option"),
        (["train", "--model", MODELS], "must be one model; the command compare takes several"),
        (["train"], "give either --data and --model"),
        (["train", "--plan", "FILE", "--seed", "3"], "--seed with both"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_before_anything_is_trained(arguments, needle, tmp_path, capsys):
    root = write_images(tmp_path / "own", [(40, 48)] * 4)
    (tmp_path / "file").write_text("")
    command = ["--out", str(tmp_path / "out"), *arguments[1:]]
    command = [str(tmp_path / "file") if word == "FILE" else word for word in command]
    refused_by_main(capsys, [arguments[0], "--data", str(root), *command], needle)
    assert not (tmp_path / "out/runs").exists()
