"""What the tests share: one thread, data, and the released code's reference tensors: small ones here, others beside."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import glamlib.torchvision_schemas  # noqa: F401  (before any test imports timm)
from glamlib.errors import InputError

torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY.parent / "shared" / "reference"
SMALL_REFERENCE = REPOSITORY / "tests" / "reference"


def python(*arguments: object) -> subprocess.CompletedProcess:
    """Run Python at the project's root, on the library of this clone and with one thread."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


@contextmanager
def refused(*needles: object) -> Iterator[None]:
    """Expect an InputError of one line in which every needle occurs."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [needle for needle in needles if str(needle) not in message] == [], message


def refused_by_main(capsys: pytest.CaptureFixture[str], arguments: list[str], *needles: str) -> None:
    """Expect status 2, nothing on stdout, and an error of one line in which every needle occurs."""
    from glamlib.cli import main  # here: most tests do without it

    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err[:7]) == ("", 1, "error: ")
    assert [needle for needle in needles if needle not in err] == [], err


def image(*shape: int) -> torch.Tensor:
    """Return the same normal random numbers whenever it is asked for them."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def loud(module: nn.Module, std: float = 0.5) -> nn.Module:
    """The module with random parameters large enough that each of them, of norms and biases too, shows in a result."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module.eval()


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def write_folder(root: Path, pairs: Iterable[tuple], table: dict | None = None, labels: str = "labels") -> Path:
    """Write images and labels, 00.png and so on, and the classes.json of a data set of the form "folder"."""
    for number, pair in enumerate(pairs):
        for kind, pixels in zip(("images", labels), pair, strict=True):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"{number:02}.png")
    if table:
        (root / "classes.json").write_text(json.dumps(table))
    return root


def _reference_file(name: str, suffix: str) -> Path:
    file = SMALL_REFERENCE / f"{name}{suffix}"
    return file if file.is_file() else REFERENCE / "tensors" / f"{name}{suffix}"


def reference(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Return the tensors (float32) and constructor arguments of one released module; skips where they are absent."""
    file = _reference_file(name, ".safetensors")
    if not file.is_file():
        pytest.skip("this reference tensor is not in tests/reference, and the larger ones are not beside this clone")
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in load_file(file).items()}
    return tensors, reference_details(name)["arguments"]


def reference_details(name: str) -> dict:
    """Return all that is said of one released module: see tests/reference/README.md."""
    return json.loads(_reference_file(name, ".json").read_text())


@pytest.fixture
def data_root() -> Path:
    """The folder of real data; skips where there is none."""
    root = Path(os.environ.get("GLAM_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (root / "camvid").is_dir():
        pytest.skip("no real data: set GLAM_DATA")
    return root


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """timm's Swin-T with random weights; its zero biases too, so that a missing one would show."""
    torch.manual_seed(0)
    import timm  # here: most tests do without it

    model = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "table" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def weights_file(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("weights") / "swin_tiny.safetensors"
    save_file(theirs.state_dict(), path)
    yield path
    path.unlink()  # 100 MB, which pytest would keep
