import time

import pandas as pd
import pytest
import torch

from glamlib.data.scenes import CueScenes, SceneConfig
from glamlib.data.transforms import TrainTransform
from glamlib.errors import InputError
from glamlib.study import loader_speed
from glamlib.study.training import TrainingView


class Slow:
    """A data set whose items take 20 ms each."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        time.sleep(0.02)
        return torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8)


def test_the_clock_counts_images_not_batches():
    speed = loader_speed.images_per_second(TrainingView(Slow(), 0, None), batch_size=3, workers=0, batches=3)
    assert 1 < speed <= 50


def test_a_table_is_written_only_when_asked(tmp_path, monkeypatch, capsys):
    scenes = CueScenes(SceneConfig(size=32, num_shapes=1), 4, seed=0)
    monkeypatch.setattr(loader_speed, "load_dataset", lambda name, split, root: scenes)
    options = {"crop_size": (16, 24), "batch_size": 2, "workers": (0,), "batches": 2}
    loader_speed.main("scenes", trains_at=1e-3, **options)
    assert "scenes 16x24, 0 workers" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    loader_speed.main("scenes", results=tmp_path, **options)
    (row,) = pd.read_csv(tmp_path / "tables" / "loader_speed.csv").to_dict("records")
    assert row["images_per_second"] > 0
    assert {"device", "torch", "commit", "dirty"} <= row.keys()
    assert {key: row[key] for key in ("dataset", "height", "width", "batch_size", "workers")} == {
        "dataset": "scenes",
        "height": 16,
        "width": 24,
        "batch_size": 2,
        "workers": 0,
    }


class Broken(Slow):
    def __getitem__(self, index):
        raise InputError("picture.png: cannot be read")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_one_line_from_a_worker_too(workers):
    with pytest.raises(InputError) as caught:
        loader_speed.images_per_second(TrainingView(Broken(), 0, None), batch_size=1, workers=workers, batches=1)
    assert str(caught.value) == "picture.png: cannot be read"


@pytest.mark.parametrize(("options", "named"), [((0, [0], 1), "batch_size 0"), ((1, [-1], 1), "workers -1")])
def test_bad_numbers_are_refused(options, named):
    batch_size, workers, batches = options
    with pytest.raises(InputError, match=f"{named} cannot be used; allowed"):
        loader_speed.measure("slow", Slow(), TrainTransform((8, 8)), batch_size, workers, batches)
