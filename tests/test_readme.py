"""The README's code runs as it stands, on a small folder of one's own images."""

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, write_folder
from PIL import Image

import glamlib
from glamlib.cli import main

README = (REPOSITORY / "README.md").read_text()
TRAINING, ONNX = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What the README's code has defined, run in a folder that holds my_folder: a bright half is class 1."""
    place, random = tmp_path_factory.mktemp("readme"), np.random.default_rng(0)
    pairs = []
    for number in range(12):
        image, label = random.integers(0, 100, (60 + 10 * (number % 3), 80, 3)), np.zeros((60 + 10 * (number % 3), 80))
        side = slice(0, 40) if random.random() < 0.5 else slice(40, 80)
        image[:, side] += 150
        label[:, side] = 1
        pairs.append((image.astype(np.uint8), label.astype(np.uint8)))
    write_folder(place / "my_folder", pairs, {"classes": ["dark", "bright"]})
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        torch.manual_seed(0)
        exec(TRAINING, names)
        yield names


def test_code_learns_and_the_file_is_the_model(run, capsys):
    image, label = run["load_dataset"]("folder", "test", root="my_folder")[0]
    assert run["prediction"].shape == label.shape == image.shape[1:]
    assert (run["prediction"] == label).float().mean() > 0.9
    assert not run["model"].training
    assert (run["model"].classes, run["model"].inference.size) == (("dark", "bright"), (128, 128))
    Image.fromarray(image.permute(1, 2, 0).numpy()).save("photo.png")
    assert main(["predict", "mine.safetensors", "photo.png", "--out", "predicted"]) == 0
    assert np.array_equal(Image.open("predicted/labels/photo.png"), run["prediction"])
    assert main(["evaluate", "mine.safetensors", "--data", "my_folder"]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["miou"] > 0.8


def test_exported_program_is_the_model_for_any_batch(run):
    program = torch.export.load("mine.pt2").module()
    for count in (1, 3):
        x = torch.randn(count, 3, 128, 128)
        with torch.no_grad():
            torch.testing.assert_close(program(x), run["model"](x), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_onnx_is_the_model_for_any_batch(run):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    onnxruntime = pytest.importorskip("onnxruntime")
    exec(ONNX, run)
    session = onnxruntime.InferenceSession("mine.onnx")
    for count in (1, 3):
        x = torch.randn(count, 3, 128, 128)
        with torch.no_grad():
            expected = run["model"](x)
        (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)


def test_what_is_no_model_of_the_library_is_refused(tmp_path):
    model = glamlib.create_model("swin_nano_linear", num_classes=2)
    volumes = glamlib.create_model("nnformer_nano", num_classes=2)
    with pytest.raises(glamlib.InputError, match="must be 2 strings, a name for each class"):
        glamlib.save_model(tmp_path / "a.safetensors", model, ["x", "y", "z"])
    for other in (torch.nn.Conv2d(3, 2, 1), volumes):
        with pytest.raises(glamlib.InputError, match="model must be one of images that create_model made"):
            glamlib.save_model(tmp_path / "a.safetensors", other, ["x", "y"])
    with pytest.raises(glamlib.InputError, match=r"classes \[0, 1\]: must be 2 strings"):
        glamlib.save_model(tmp_path / "a.safetensors", model, [0, 1])  # no names
    many = glamlib.create_model("swin_nano_linear", num_classes=256)
    with pytest.raises(glamlib.InputError, match="256 classes: a label map holds at most 255"):
        glamlib.save_model(tmp_path / "a.safetensors", many, list(map(str, range(256))))
    with pytest.raises(glamlib.InputError, match=r"save_model\(weights_file, model, classes\)"):  # as torch.save has it
        glamlib.save_model(model, tmp_path / "a.safetensors", ["x", "y"])
    (tmp_path / "b.safetensors").write_bytes(b"no weights")
    with pytest.raises(glamlib.InputError, match=r"b\.safetensors: cannot be read as a weights file"):
        glamlib.load_model(tmp_path / "b.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_readme_is_short():
    assert len(README.splitlines()) <= 190
