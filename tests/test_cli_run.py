"""train, evaluate, predict on the command line: one tiny run, used as its owner would use it."""

import json
import shutil
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY, refused_by_main, write_folder
from PIL import Image
from torchvision.transforms.v2 import functional

import glamlib
from glamlib import create_model, studies
from glamlib.cli import main
from glamlib.data.transforms import normalise
from glamlib.errors import InputError
from glamlib.evaluation.cues import CueAccuracy
from glamlib.evaluation.evaluate import evaluate
from glamlib.runs.notebook import execute, execute_all
from glamlib.runs.places import CHECKPOINT
from glamlib.runs.records import read_record
from glamlib.runs.run import run_one
from glamlib.runs.saved_model import load_model, save_model
from glamlib.training.datasets import run_parts

RUN = replace(
    studies.find_study("context").run("glam_2", 90, "quick"),
    steps=4,
    warmup_steps=1,
    batch_size=2,
    data={"size": 32, "num_shapes": 1, "train": 4, "test": 3},
)
CHANGED = ["steps=4", "warmup_steps=1", "batch_size=2", f"data={json.dumps(RUN.data)}"]
NAMED = ["--study", "context", "--variant", "glam_2", "--seed", "90", "--profile", "quick"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with record and weights, ``w.safetensors``, of RUN."""
    folder = tmp_path_factory.mktemp("run")
    places = ["--out", str(folder), "--weights", str(folder / "w.safetensors")]
    assert main(["train", *places, *NAMED, "--set", *CHANGED[:2], "--set", *CHANGED[2:]]) == 0
    return folder


def record_of(results: Path, seed: int = 90) -> dict:
    return read_record(results / f"runs/context/glam_2/seed-{seed}/record.json")


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def photo(path: Path, height: int, width: int) -> tuple[np.ndarray, torch.Tensor]:
    """Save a random image; return its pixels (H, W, 3), and the same as uint8 (1, 3, H, W)."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    return pixels, torch.from_numpy(pixels).permute(2, 0, 1)[None]


def test_train_writes_the_record_and_leaves_no_checkpoint(trained, capsys):
    assert record_of(trained)["parameters"] == json.loads(json.dumps(RUN.to_dict()))
    assert not list(trained.rglob(CHECKPOINT))
    for change, needle in (
        ("threads=4096", "threads=4096"),
        ("accumulate=3", "batch_size=2: must be a multiple of 3"),
        ("pretrained=/nowhere", "no weights file /nowhere"),
    ):
        refused_by_main(capsys, ["train", "--out", str(trained), *NAMED, "--set", *CHANGED, "lr=0.5", change], needle)
    assert record_of(trained)["parameters"]["lr"] == RUN.lr  # of a run that cannot start, the old record is left


@pytest.mark.parametrize("way", ["plan", pytest.param("notebook", marks=pytest.mark.slow)])
def test_a_plan_file_and_the_notebook_give_the_same_bits(way, trained, tmp_path):
    plan, weights = tmp_path / "plan.json", tmp_path / "w.safetensors"
    if way == "plan":
        plan.write_text(json.dumps({"parameters": RUN.to_dict(), "code": ""}))
        assert main(["train", "--plan", str(plan), "--out", str(tmp_path), "--weights", str(weights)]) == 0
    else:
        parameters = RUN.to_dict() | {"results": str(tmp_path), "weights": str(weights)}
        notebook = REPOSITORY / "notebooks" / "14_train.ipynb"
        execute_all([partial(execute, notebook, tmp_path / "out.ipynb", parameters)], jobs=1)
    assert record_of(tmp_path)["metrics"] == record_of(trained)["metrics"]
    histories = [folder / "runs/context/glam_2/seed-90/history.csv" for folder in (tmp_path, trained)]
    assert histories[0].read_text() == histories[1].read_text()
    assert weights.read_bytes() == (trained / "w.safetensors").read_bytes()


def test_a_run_that_validates_tests_its_best_weights(tmp_path):
    run = replace(RUN, data=RUN.data | {"val": 2}, steps=6, validate_every=2, lr=0.05)
    record = read_record(run_one(run, tmp_path, tmp_path / "w.safetensors"))
    folder = tmp_path / "runs/context/glam_2/seed-90"
    history = pd.read_csv(folder / "history.csv").dropna()
    best, last = (load_model(folder / f"{name}.safetensors") for name in ("best", "last"))
    assert (folder / "best.safetensors").read_bytes() == (tmp_path / "w.safetensors").read_bytes()
    parts, scores = run_parts(run), history["val_right_given_found"]
    for saved, score in (best, scores.max()), (last, scores.iloc[-1]):
        cues = CueAccuracy(parts["val"])
        evaluate(saved.model, parts["val"], on_image=cues.update)
        assert np.nan_to_num(cues.metrics()["right_given_found"]) == score
    assert evaluate(best.model, parts["test"]).metrics()["miou"] == record["metrics"]["miou"]
    assert record["data"].keys() == {"val", "test"}
    with pytest.raises(InputError, match="validate_every=2: the option of data val is missing"):
        run_one(replace(RUN, validate_every=2), tmp_path / "other")


def test_evaluate_says_what_the_record_says(trained, tmp_path, capsys):
    weights = str(trained / "w.safetensors")
    assert main(["evaluate", weights]) == 0
    said, err = capsys.readouterr()
    metrics = json.loads(said)
    assert err == "3 items of scenes\n"
    classes = metrics.pop("classes")
    assert metrics | {"steps_to_criterion": None} == record_of(trained)["metrics"]  # which is of the training
    assert [*classes] == record_of(trained)["classes"]
    assert [row["iou"] for row in classes.values()] == metrics["iou"]
    assert [row["pixels"] for row in classes.values()] == np.sum(metrics["confusion"], axis=1).tolist()
    for side, same in (("32", True), ("16", False)):  # one window that covers the image is the whole image
        assert main(["evaluate", weights, "--slide", side, side, "--out", str(tmp_path / "m.json")]) == 0
        assert capsys.readouterr().out == ""
        assert (json.loads((tmp_path / "m.json").read_text())["confusion"] == metrics["confusion"]) == same


def test_predict_keeps_going_past_a_broken_file(trained, tmp_path, capsys):
    images, out = tmp_path / "frames", tmp_path / "out"
    images.mkdir()
    pixels, x = photo(images / "a.png", 32, 40)
    photo(images / "c.png", 32, 40)
    photo(images / "d.png", 48, 33)
    (images / "b.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 4)).save(images / "e.png")  # smaller than a window
    Image.new("RGB", (40, 40)).save(images / "d.jpg")  # comes before d.png
    photo(images / "f.ppm", 32, 40)
    (images / "notes.txt").write_text("")
    Image.new("L", (40, 36)).save(images / f"{'n' * 251}.png")  # 255 bytes, the longest name there is
    weights = trained / "w.safetensors"
    assert main(["predict", str(weights), str(images), "--out", str(out)]) == 1
    said, err = capsys.readouterr()
    assert said == f"6 of 9 image(s) in {out}\n"
    failures = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1].rsplit("/")[-1] for line in failures] == ["b.png", "d.png", "notes.txt"]
    assert "has the same name as d.jpg" in failures[1]
    for kind in ("labels", "overlays"):
        assert sorted(file.name for file in (out / kind).iterdir()) == [f"{name}.png" for name in [*"acdef", "n" * 251]]
    saved = load_model(weights)
    with torch.no_grad():
        expected = saved.model(normalise(x))[0].argmax(0).numpy()
    with Image.open(out / "labels" / "a.png") as labels, Image.open(out / "overlays" / "a.png") as overlay:
        assert labels.mode == "P"
        assert (np.array(labels) == expected).all()
        colours = np.array(labels.convert("RGB"))
        assert (colours == np.array(saved.palette)[expected]).all()
        half = (pixels.astype(float) + colours) / 2
        assert np.abs(np.array(overlay) - half).max() <= 1


def test_frames_of_several_videos_keep_their_folders(trained, tmp_path):
    for video in "ab":
        (tmp_path / "in" / video).mkdir(parents=True)
        photo(tmp_path / "in" / video / "1.png", 32, 40)
    out = tmp_path / "out"
    arguments = ["predict", str(trained / "w.safetensors"), str(tmp_path / "in"), "--out", str(out), "--confidence"]
    assert main(arguments) == 0
    found = sorted(str(file.relative_to(out)) for file in out.rglob("*.png"))
    assert found == [f"{kind}/{video}/1.png" for kind in ("confidence", "labels", "overlays") for video in "ab"]


def test_labels_of_a_data_set_are_not_overwritten(trained, tmp_path, capsys):
    pixels, _ = photo(tmp_path / "photo.png", 32, 40)
    root = write_folder(tmp_path / "own", [(pixels, pixels[..., 0])])
    before, predict = (root / "labels/00.png").read_bytes(), ["predict", str(trained / "w.safetensors")]
    tables = [root / "classes.json", root / "dataset.json", tmp_path / "classes.json"]  # of the last root/ is a split
    beside = [(root / name, None) for name in (".", "images", "images/00.png")]
    for source, table in (*((tmp_path / "photo.png", table) for table in tables), *beside):
        if table:
            table.touch()
        refused_by_main(capsys, [*predict, str(source), "--out", str(root)], f"{root}: a data set, whose own labels/")
        if table:
            table.unlink()
    shutil.copytree(root / "labels", tmp_path / "by hand/labels")  # beside no image and no table
    (tmp_path / "by hand/overlays").mkdir()  # some labelling tool's
    arguments = [*predict, str(tmp_path / "photo.png"), "--out", str(tmp_path / "by hand")]
    refused_by_main(capsys, arguments, "by hand: a data set, whose own labels/")
    assert (root / "labels/00.png").read_bytes() == before
    for out in (tmp_path, root / "images"):  # its own predictions are overwritten
        assert [main([*predict, str(root / "images/00.png"), "--out", str(out)]) for _ in range(2)] == [0, 0]


def test_a_photo_is_predicted_at_the_size_of_training_and_comes_back_at_its_own(trained, tmp_path):
    saved = load_model(trained / "w.safetensors")
    data = {"train": "train", "test": "test", "size": [32, 48]}
    weights, picture = str(tmp_path / "w.safetensors"), tmp_path / "photo.png"
    save_model(Path(weights), replace(saved, run=replace(saved.run, dataset="camvid", data=data)))
    _, x = photo(picture, 60, 50)
    for how, size in ([], [32, 48]), (["--scales", "2"], [64, 96]), (["--resize", "48", "48"], [48, 40]):
        assert main(["predict", weights, str(picture), "--out", str(tmp_path), *how]) == 0
        with torch.no_grad():
            logits = saved.model(normalise(functional.resize(x, size, antialias=True)))
        expected = F.interpolate(logits, (60, 50), mode="bilinear")[0].argmax(0).numpy()
        assert (read(tmp_path / "labels" / "photo.png") == expected).all()


def test_large_photos_are_predicted_in_windows(trained, tmp_path, capsys, monkeypatch):
    """More than twice the size of training, 32 px: windows of it every 28 px; and what does not fit fails alone."""
    weights, model = trained / "w.safetensors", load_model(trained / "w.safetensors").model
    x = {side: normalise(photo(tmp_path / f"{side}.webp", 64, side)[1]) for side in (64, 88)}
    logits, times = torch.zeros(1, model.num_classes, 64, 88), torch.zeros(64, 88)
    with torch.no_grad():
        for top, left in product((0, 28, 32), (0, 28, 56)):
            window = (..., slice(top, top + 32), slice(left, left + 32))
            logits[window] += model(x[88][window])
            times[window] += 1
        expected = {"64": model(x[64]), "88": logits / times}
        for options, scores in (["--confidence"], expected), (["--whole"], expected | {"88": model(x[88])}):
            assert main(["predict", str(weights), str(tmp_path), "--out", str(tmp_path / "out"), *options]) == 0
            note = "images like 88.webp (64x88) are predicted in windows of the training size, 32x32"
            assert (note in capsys.readouterr().out) == ("--whole" not in options)
            for name, each in scores.items():
                assert (read(tmp_path / f"out/labels/{name}.png") == each[0].argmax(0).numpy()).all()
        for name, scores in expected.items():
            sure = scores.softmax(dim=1)[0].amax(0).numpy() * 255
            assert np.abs(read(tmp_path / f"out/confidence/{name}.png") - sure).max() <= 0.51
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=300_000_000))
    Image.new("L", (4000, 4000)).save(tmp_path / "70.png")
    assert main(["predict", str(weights), str(tmp_path), "--out", str(tmp_path / "out"), "--whole"]) == 1
    said, err = capsys.readouterr()
    assert said.startswith("2 of 3 image(s)")
    assert "70.png: 1 item(s) of 4000x4000 do not fit into the memory of cpu" in err


def test_confidence_of_several_views_is_of_their_mean(trained, tmp_path):
    weights, x = trained / "w.safetensors", normalise(photo(tmp_path / "a.bmp", 32, 40)[1])
    how = ["--confidence", "--scales", "1", "--flip"]
    assert main(["predict", str(weights), str(tmp_path / "a.bmp"), "--out", str(tmp_path), *how]) == 0
    model = load_model(weights).model
    with torch.no_grad():
        mean = (model(x).softmax(1) + model(x.flip(-1)).softmax(1).flip(-1))[0] / 2
    assert (read(tmp_path / "labels/a.png") == mean.argmax(0).numpy()).all()
    assert np.abs(read(tmp_path / "confidence/a.png") - mean.amax(0).numpy() * 255).max() <= 0.51


def test_bad_input_is_refused_before_anything_is_done(trained, tmp_path, monkeypatch, capsys):
    """Every output is tried, too, before there is a result that could be lost."""
    monkeypatch.setattr("glamlib.runs.run.train", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr("glamlib.runs.predict.predict_classes", lambda *_: pytest.fail("predicted"))
    weights, grey, out = str(trained / "w.safetensors"), str(tmp_path / "grey.png"), str(tmp_path / "out")
    bad, palette, plan, file, none, folder = (str(tmp_path / name) for name in ("w", "p", "plan", "file", "none", "."))
    Image.new("L", (40, 36)).save(grey)
    Path(bad).write_bytes(b"no weights")
    Path(plan).write_text("{}")
    Path(file).write_text("")
    (tmp_path / "empty").mkdir()
    save_model(Path(palette), replace(load_model(Path(weights)), palette=((1, 2, 3),)))
    before = sorted(tmp_path.iterdir())
    train, named = ["train", "--out", out], [*NAMED, "--set", *CHANGED]
    for arguments, needle in (
        (["predict", weights, f"{folder}/empty", "--out", out], "empty: no images"),
        (["predict", weights, none, "--out", out], "none: no such file or folder"),
        (["predict", weights, grey, grey, "--out", out], "SOURCE: must be one file or one folder, not 2"),
        (["predict", weights, f"{folder}/two\nlines", "--out", out], "two\\nlines: no such file or folder"),
        (["predict", bad, grey, "--out", out], "w: cannot be read as a weights file"),
        (["predict", palette, grey, "--out", out], "(not one colour a class)"),
        (["predict", weights, grey, "--out", out, "--stride", "8", "8"], "mode 'whole' takes no stride"),
        (["predict", weights, grey, "--out", out, "--raw-ids"], "glam_swin_nano_linear was trained on scenes"),
        (["predict", weights, grey, "--out", file], "cannot write"),
        (["evaluate", weights, "--dataset", "camvidd", "--split", "val"], "unknown dataset 'camvidd'; allowed: scenes"),
        (["evaluate", weights, "--dataset", "camvid"], "--dataset camvid: give its --split, too"),
        (["evaluate", weights, "--split", "val"], "scenes are drawn: for models trained on them alone"),
        (["evaluate", weights, "--data", none], "none: no such folder"),
        (["evaluate", weights, "--data", none, "--dataset", "camvid"], "either --data PATH or --dataset"),
        (["evaluate", weights, "--out", f"{file}/m.json"], "cannot write"),
        (train, "give either --data and --model, or --study and --variant, or --plan FILE"),
        ([*train, "--plan", plan], "plan: cannot be read as a plan file"),
        ([*train, "--study", "contxt", "--variant", "glam_2"], "unknown study 'contxt'"),
        ([*train, *NAMED, "--set", "steps"], "'steps': must be NAME=VALUE"),
        (["train", "--out", file, *named], "cannot write"),
        (["train", "--out", folder, "--weights", folder, *named], "cannot write"),
        (["look", weights, grey, "--at", "40", "0", "--out", "x.png"], "pixel 40 0: outside the image, which is 40"),
        (["look", weights, grey, "--at", "0", "0", "--out", "x.png", "--stage", "4"], "unknown stage 4; allowed: 0"),
        (["look", weights, grey, "--at", "0", "0", "--out", "look.gif"], "look.gif: must be a .png"),
    ):
        refused_by_main(capsys, arguments, needle)
    assert sorted(path for path in tmp_path.iterdir() if path.name != "runs") == before


def test_look_draws_a_picture_over_the_photo(trained, tmp_path, capsys):
    weights, photo, out = str(trained / "w.safetensors"), str(tmp_path / "photo.webp"), str(tmp_path / "look.png")
    Image.new("RGB", (50, 41), "orange").save(photo)
    swin = replace(RUN, model="swin_nano_linear", overrides={})
    saved = load_model(trained / "w.safetensors")
    model = create_model(swin.model, num_classes=len(saved.classes))
    save_model(tmp_path / "w.safetensors", replace(saved, model=model, run=swin))
    beside = ["--beside", str(tmp_path / "w.safetensors"), "--receptive-field", "--device", "cpu"]
    assert main(["look", weights, photo, "--at", "49", "40", "--out", out, *beside]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as picture:
        assert picture.size[0] > picture.size[1] > 300


def test_own_data_are_scored_at_their_own_size(trained, tmp_path, capsys):
    """The images are resized as in training, the labels are not; checked against a confusion matrix of numpy's."""
    saved = load_model(trained / "w.safetensors")
    root, random, expected, pairs = tmp_path / "own", np.random.default_rng(0), np.zeros((3, 3), int), []
    for size in [(60, 50), (33, 47), (40, 40)]:
        pixels, image = photo(tmp_path / "photo.png", *size)
        label = random.choice(np.array([0, 1, 2, 255], np.uint8), size)
        pairs.append((pixels, label))
        x = normalise(functional.resize(image, [32, 48], antialias=True))
        with torch.no_grad():
            prediction = F.interpolate(saved.model(x), size, mode="bilinear")[0].argmax(0).numpy()
        np.add.at(expected, (label[label != 255], prediction[label != 255]), 1)
    write_folder(root, pairs, {"classes": saved.classes, "ignore_index": 255}, labels="masks")
    for split in ("train", "val", "test"):
        (root / f"{split}.txt").write_text("00\n01\n02" if split == "test" else "")
    data = {"train": "train", "test": "val", "size": [32, 48]}
    weights = str(tmp_path / "w.safetensors")
    for dataset in ("folder", "camvid"):
        save_model(Path(weights), replace(saved, run=replace(saved.run, dataset=dataset, root="gone", data=data)))
        assert main(["evaluate", weights, "--data", str(root)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["confusion"] == expected.tolist()
        assert found["classes"]["cue 1"]["pixels"] == expected[1].sum()
    refused_by_main(capsys, ["evaluate", weights], "gone")
    save_model(Path(weights), replace(saved, run=replace(saved.run, dataset="folder", root="", data=data)))
    refused_by_main(capsys, ["evaluate", weights], "w.safetensors: names no data; give --data PATH")


def test_weights_of_other_classes_are_not_scored(trained, tmp_path, monkeypatch, capsys):
    weights, pixels = trained / "w.safetensors", np.eye(32, dtype=np.uint8)
    root = write_folder(tmp_path / "folder" / "val", [(pixels, pixels)]).parent
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    arguments = ["evaluate", str(weights), "--dataset", "folder", "--split", "val"]
    (root / "classes.json").write_text(json.dumps({"classes": ["ground", "thing"], "ignore_index": None}))
    refused_by_main(capsys, arguments, "w.safetensors: classes", "of the data: ('ground', 'thing')")
    grey, file = create_model("swin_nano_linear", num_classes=2, in_channels=1), tmp_path / "grey"
    glamlib.save_model(file, grey, ["ground", "thing"])
    command = ["evaluate", str(file), "--data", str(root), *arguments[-2:]]
    refused_by_main(capsys, command, "grey: channels 1; of the data: 3")
    (root / "classes.json").write_text(json.dumps({"classes": load_model(weights).classes, "ignore_index": None}))
    assert main(arguments) == 0
    said, err = capsys.readouterr()
    assert np.sum(json.loads(said)["confusion"]) == 32 * 32
    assert "1 items of folder, split val; " in err
