"""The benchmark of the paper's scale: what stands in for absent sets, what is timed, and hours by hand."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

# GONE glamlib.study.paper_hours: paper_hours
# GONE glamlib.study.paper_speed: paper_speed
# GONE glamlib.study.standin: standin
from glamlib.bench.step import StepSpeed
from glamlib.data.ade20k import ADE20K
from glamlib.data.camvid import CAMVID
from glamlib.data.check import check_data
from glamlib.data.cityscapes import CITYSCAPES
from glamlib.errors import InputError


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GLAM_DATA with two CamVid pictures: the left half of each label is class 3, of the right half void."""
    for kind in ("images", "labels"):
        (tmp_path / "camvid/train" / kind).mkdir(parents=True)
    label = np.full((360, 480), 11, np.uint8)
    label[:, :240] = 3
    for name in ("a", "b"):
        Image.new("RGB", (480, 360), (200, 100, 50)).save(tmp_path / f"camvid/train/images/{name}.jpg")
        Image.fromarray(label).save(tmp_path / f"camvid/train/labels/{name}.png")
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "make", "size", "stored"),
    [("ade20k", ADE20K, (512, 683), 4), ("cityscapes", Cityscapes, (1024, 2048), 12)],
)
def test_standins_are_read_as_the_real_set_is(
    name: str, make: type, size: tuple[int, int], stored: int, data: Path, tmp_path: Path
) -> None:
    """By its own reader and by check-data: no file is bad, 3 pairs, CamVid's class 3 is the set's class 3."""
    standin.write_standin(name, CAMVID.open(data / "camvid", "train"), tmp_path / name, 3)
    items = make(tmp_path / name, "train")
    assert len(items) == 3
    image, label = items[2]
    assert (tuple(image.shape), tuple(label.shape)) == ((3, *size), size)
    assert label[:, 0].unique().tolist() == [3]
    assert label[:, -1].unique().tolist() == [255]
    report = check_data(name, tmp_path / name)
    assert sorted(report.splits["train"].values) == [0, stored]
    assert not [line for line in report.problems if "cannot be read" in line or "out of range" in line]
    with pytest.raises(InputError, match="unknown set to stand in for 'bcv'; allowed: ade20k, cityscapes"):
        standin.write_standin("bcv", CAMVID.open(data / "camvid", "train"), tmp_path / "bcv", 1)


def test_the_loader_is_timed_with_the_recipe_and_says_whose_pictures(data: Path) -> None:
    rows = paper_speed.loader_rows((0,), {"ade20k": 1, "cityscapes": 1})
    told = [(row.dataset, row.height, row.width, row.workers, row.pictures) for row in rows]
    assert told == [("ade20k", 512, 512, 0, "CamVid, enlarged"), ("cityscapes", 512, 1024, 0, "CamVid, enlarged")]
    assert all(row.images_per_second > 0 for row in rows)
    assert {"torch", "commit", "dirty", "device"} <= rows[0].row().keys()


def test_a_set_that_is_there_is_timed_itself(data: Path) -> None:
    standin.write_standin("ade20k", CAMVID.open(data / "camvid", "train"), data / "ade20k", 2)
    standin.write_standin("cityscapes", CAMVID.open(data / "camvid", "train"), data / "cityscapes", 2)
    (data / "camvid").rename(data / "elsewhere")
    rows = paper_speed.loader_rows((0,), {"ade20k": 1, "cityscapes": 1})
    assert {row.pictures for row in rows} == {"its own"}


def test_without_any_pictures_it_says_how_to_get_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLAM_DATA", raising=False)
    with pytest.raises(InputError, match=r"dataset 'camvid': GLAM_DATA is not set; .*make camvid"):
        paper_speed.loader_rows((0,))


def test_every_network_of_the_recipe_is_timed_on_a_gpu() -> None:
    listed = paper_speed.cases("cuda")
    assert len(set(listed)) == len(listed)
    timed = {(case.model, case.tokens, case.size) for case in listed}
    wanted = {
        (run.model, run.overrides.get("num_global_tokens", 0), tuple(run.augment["crop_size"]))
        for run in paper_hours.paper_runs()
    }
    assert timed == wanted
    # hours of UNet and UPerNet can be told from what a CPU times
    assert {paper_hours.decoder_of(case.model) for case in paper_speed.cases("cpu")} == {"unet", "upernet"}


def test_step_table_has_provenance_and_multiply_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(run, height, width, warm_up, timed):
        assert (run.overrides, run.threads, warm_up, timed) == ({"num_global_tokens": 2}, 3, 1, 2)
        return StepSpeed(run.model, "", height, width, run.batch_size, run.precision, "cpu", 0.5, 9.0, run.threads)

    monkeypatch.setattr(paper_speed, "measure", measure)
    case = paper_speed.Case("glam_swin_nano_unet", 2, (64, 32), 4)
    (row,) = paper_speed.step_table((case,), "cpu", 3, 1, 2).to_dict("records")
    assert (row["images_per_second"], row["tokens"], row["threads"]) == (8, 2, 3)
    assert {"torch", "commit", "dirty"} <= row.keys()
    from glamlib import create_model
    from glamlib.cost.count import cost

    whole = cost(create_model(case.model, num_classes=150, num_global_tokens=2), 64, 32)
    assert row["gmacs"] == pytest.approx(whole.gmacs["total"])


def steps(*rows: tuple) -> pd.DataFrame:
    names = ["model", "tokens", "height", "width", "batch_size", "seconds", "gmacs", "precision"]
    table = pd.DataFrame([(*row, "fp32")[:8] for row in rows], columns=names)
    return table.assign(images_per_second=table["batch_size"] / table["seconds"], device="one")


TIMED = steps(
    ("swin_tiny_unet", 0, 256, 256, 2, 4.0, 10.0),  # 0.2 s a G
    ("swin_tiny_unet", 0, 512, 512, 2, 12.0, 40.0),  # 0.15 s a G
    ("swin_tiny_unet", 0, 512, 512, 8, 40.0, 40.0),  # 0.125 s a G: a larger batch is faster
    ("swin_tiny_upernet", 0, 256, 256, 2, math.nan, 60.0),  # does not fit
)


def test_seconds_of_an_image_by_hand() -> None:
    def told(gmacs: float, model: str, tokens: int, size: int) -> tuple[float, str]:
        return paper_hours.seconds_of_image(gmacs, model, tokens, (size, size), TIMED)

    assert told(40, "swin_tiny_unet", 0, 512) == (pytest.approx(5), "measured")
    assert told(80, "glam_swin_tiny_unet", 10, 512) == (pytest.approx(80 * 0.15), "by multiply-adds")
    assert math.isnan(told(60, "swin_tiny_upernet", 0, 256)[0])


def test_foretold_rows_leave_themselves_out() -> None:
    checked = paper_hours.foretold_over_measured(TIMED)
    # 256 from 512: 10 G at 0.15 s, two images; 512, batch 2, from the same network and size at batch 8: 5 s an image
    assert checked["foretold"].tolist()[:2] == [pytest.approx(3), pytest.approx(10)]
    assert checked["quotient"].tolist()[:2] == [pytest.approx(3 / 4), pytest.approx(10 / 12)]


def test_hours_of_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_hours, "multiply_adds", lambda run: 40e9)
    faster = steps(("swin_tiny_unet", 0, 512, 512, 2, 1.0, 40.0, "bf16"))  # the recipe is fp32
    table = paper_hours.paper_hours(pd.concat([TIMED, faster], ignore_index=True)).set_index(["study", "variant"])
    assert len(table) == 44
    row = table.loc[("ade20k", "swin_tiny_unet")]
    assert (row["hours"], row["how"]) == (pytest.approx(160_000 * 16 * 5 / 3600), "measured")
    row = table.loc[("cityscapes", "glam_10_base_unet")]
    assert (row["hours"], row["how"]) == (pytest.approx(160_000 * 16 * 40 * 0.15 / 3600), "by multiply-adds")
    assert table["hours"].isna().sum() == 2 * 9  # UPerNet's


def test_benchmark_refuses_in_one_line(data: Path) -> None:
    with pytest.raises(InputError, match="threads 0: must be at least 1"):
        paper_speed.paper_speed(data, threads=0)
    with pytest.raises(InputError, match="unknown device 'tpu'; allowed: cpu, cuda, auto"):
        paper_speed.paper_speed(data, device="tpu")
    assert not (data / "tables").exists()
