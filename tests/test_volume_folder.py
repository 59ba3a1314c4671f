"""One's own volumes: dataset.json of the Decathlon and of nnU-Net, channels, splits, statistics, scores."""

import json
import re
from itertools import chain
from unicodedata import normalize

import numpy as np
import pytest
from nifti_files import cut, names, own_volumes, save

from glamlib.data.check import check_data
from glamlib.data.datasets import dataset_of, load_volumes
from glamlib.data.volumes import normalised
from glamlib.errors import InputError

SPLITS = ("train", "val", "test")


def loaded(root, split="train", **options):
    return load_volumes("volumes", split, root=root, **options)


@pytest.mark.parametrize("version", ["decathlon", "nnunet"])
@pytest.mark.parametrize("channels", [("MRI",), ("FLAIR", "T1w", "CT")])
def test_both_layouts_are_read_with_any_names_labels_and_channels(tmp_path, version, channels):
    root = own_volumes(tmp_path / "my organ", version, channels, labels={"background": 0, "liver": 2, "tumour": 7})
    assert dataset_of(root) == "volumes"
    data = loaded(root)
    assert data.classes == ("background", "liver", "tumour")
    assert data.preprocessing.values == (0, 2, 7)
    assert not data.sided
    image, label = data[0]
    assert image.shape == (len(channels), 8, 7, 6)
    assert label.unique().tolist() == [0, 1, 2]
    raw = data.read(data.items[0])[0]
    assert np.array_equal(image[0], normalised(raw[0]))
    assert len({channel.sum() for channel in raw}) == len(channels)
    for word in (f"train: {len(data)}, imagesTr;", f"{channels[0]} (as MR)", "2 liver, 7 tumour", "held out"):
        assert word in data.about
    report = check_data("volumes", root)
    assert report.ok, report.problems
    assert [report.splits[split]["pairs"] for split in SPLITS] == [6, 2, 2]


def test_structural_scans_and_ct_are_normalised_by_the_training_structures(tmp_path):
    root = own_volumes(tmp_path, "nnunet", ("CT", "T2"))
    data = loaded(root)
    (low, high, mean, deviation), other = data.preprocessing.scales
    assert other is None
    inside = np.concatenate([image[0][label > 0] for image, label, _ in (map(data.read, data.items))])
    assert [low, high] == pytest.approx(np.percentile(inside, (0.5, 99.5)))
    assert [mean, deviation] == pytest.approx([inside.mean(), inside.std()])
    raw = data.read(loaded(root, "test").items[0])[0]
    expected = (np.clip(raw[0], low, high) - mean) / deviation
    assert np.allclose(loaded(root, "test")[0][0][0], expected, atol=1e-5)
    fixed = loaded(root, scales=[[-100, 100, 0, 100], None])
    assert fixed.preprocessing.scales == ((-100.0, 100.0, 0.0, 100.0), None)
    for bad, needle in (([None], "must be one for each"), ([[1, 2]], "must be a list"), ([[0, 1, 0, 0], None], "list")):
        with pytest.raises(InputError, match=needle):
            loaded(root, scales=bad)
    # a bad training file stops every split, because the numbers would be others
    cut(data.items[0].images[0])
    with pytest.raises(InputError, match="cannot be read"):
        loaded(root, "test")


def test_volumes_are_resampled_to_the_median_spacing_of_the_training_cases(tmp_path):
    def spacing(number):
        return (1.0, 1.0, 1.0 + number)  # x, y, z

    root = own_volumes(tmp_path, "decathlon", ("MRI",), spacing=spacing)
    data = loaded(root)
    own = [1.0 + int(name.split("-")[1]) for name in names(data)]
    assert data.preprocessing.spacing == (float(np.median(own)), 1.0, 1.0)
    for side, (image, label) in zip(own, (data[index] for index in range(len(data))), strict=True):
        depth = round(8 * side / np.median(own))
        assert image.shape == (1, depth, 7, 6)
        assert label.shape == image.shape[1:]
    assert data.median_shape() == (8, 7, 6)
    assert loaded(root, spacing=None)[0][1].shape == (8, 7, 6)
    assert loaded(root, spacing=[2, 2, 2]).median_shape()[1:] == (4, 3)


def test_a_label_may_have_another_name_than_its_image(tmp_path):
    root = own_volumes(tmp_path, "decathlon", ("MRI",))
    told = json.loads((root / "dataset.json").read_text())
    for case in told["training"]:
        name = case["image"].rpartition("/")[2]
        case["label"] = f"labelsTr/label of {name}"
        (root / "labelsTr" / name).rename(root / case["label"])
    (root / "dataset.json").write_text(json.dumps(told))
    assert sorted(name for split in SPLITS for name in names(loaded(root, split)))[0] == "case-01"
    assert check_data("volumes", root).ok


def test_splits_are_those_that_the_folder_tells_or_held_out(tmp_path):
    root = own_volumes(tmp_path, "nnunet", ("MRI",), count=20)
    drawn, again = ([names(loaded(root, split)) for split in SPLITS] for _ in range(2))
    assert drawn == again
    assert [len(each) for each in drawn] == [14, 3, 3]
    every = sorted(chain(*drawn))
    assert len(set(every)) == 20

    folds = root / "splits_final.json"
    for file in root.glob(f"*Tr/{every[0]}*"):
        file.rename(file.with_name(file.name.replace("c", "\u00e7", 1)))
    every[0] = every[0].replace("c", "\u00e7", 1)
    mac = normalize("NFD", every[0])  # the letter and its hook are two
    folds.write_text(
        json.dumps([{"train": [mac, *every[1:15]], "val": every[15:]}, {"train": every[5:], "val": every[:5]}])
    )
    assert names(loaded(root, "test")) == every[15:]
    assert {*names(loaded(root)), *names(loaded(root, "val"))} == set(every[:15])
    assert len(loaded(root, "val")) == 2
    folds.write_text("[]")
    with pytest.raises(InputError, match=r"splits_final\.json: cannot be read as nnU-Net's folds"):
        loaded(root)

    (root / "test.txt").write_text(f"{every[3]}.nii.gz\n\n{every[1]}\n")
    assert names(loaded(root, "test")) == [every[3], every[1]]
    assert len(loaded(root)) == 15
    (root / "train.txt").write_text("\n".join(every[4:9]))
    assert len(loaded(root)) == 4  # one of the five is held out

    for number in (1, 2):
        save(root / "imagesTs" / f"new {number}_0000.nii.gz", np.arange(27).reshape(3, 3, 3))
        save(root / "labelsTs" / f"new {number}.nii.gz", np.ones((3, 3, 3)))
    assert names(loaded(root, "test")) == ["new 1", "new 2"]
    assert "test: 2, imagesTs;" in check_data("volumes", root).render()
    with pytest.raises(InputError, match="unknown volumes split 'tests'; allowed: train, val, test, all"):
        loaded(root, "tests")
    for folder in ("imagesTr", "labelsTr"):  # data to be evaluated alone, prepared as those of training were
        (root / folder).rename(root / f"no {folder}")
    for file in (folds, root / "test.txt", root / "train.txt"):
        file.unlink()
    assert names(loaded(root, "test", spacing=None, scales=[None])) == ["new 1", "new 2"]
    with pytest.raises(InputError, match=r"the volumes split 'train' is empty .not found.; needed: .* at least 3"):
        loaded(root)


def table(**changes):
    return {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}} | changes


@pytest.mark.parametrize(
    ("content", "needle"),
    [
        ("{", "cannot be read as a dataset.json of the Decathlon or of nnU-Net"),
        (table(labels=["a"]), "cannot be read as a dataset.json"),
        (table(labels={"background": 0, "all": [1, 2]}), "label 'all' is a region"),
        (table(labels={"1": "a", "2": "b"}), "labels are 1 'a', 2 'b'; allowed: 0, the background"),
        (table(labels={"0": "a", " -1": "a"}), "labels are 0 'a', -1 'a'; allowed: .* each with a name of its own"),
        (table(labels={"background": 0, "a": "one"}), "cannot be read as a dataset.json"),
        (table(labels={"background": 0}), "labels are 0 'background';"),
        (table(channel_names={"0": "A", "1": "B"}), "case-01.nii.gz has 1 of 2 images"),
        (table(channel_names=None), r"KeyError\('channel_names'\)"),
        (table(file_ending=".nrrd"), "file_ending '.nrrd'"),
        (table(training=[{"image": "imagesTr/case-99.nii.gz"}]), "case-99 is in dataset.json and not here"),
    ],
    ids=str,
)
def test_a_bad_table_is_named(tmp_path, content, needle):
    root = own_volumes(tmp_path, "decathlon" if "of 2 images" not in needle else "nnunet", ("MRI",))
    (root / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=needle):
        loaded(root)
    assert any(re.search(needle, line) for line in check_data("volumes", root).problems)


def test_what_does_not_fit_together_is_named_and_the_rest_is_checked(tmp_path):
    root = own_volumes(tmp_path, "nnunet", ("A", "B"), labels={"background": 0, "left a": 1, "ignore": 2})
    (root / "imagesTr" / "case-03_0001.nii.gz").unlink()
    save(root / "imagesTr" / "case-04_0001.nii.gz", np.arange(8 * 27).reshape(8, 27, 1))
    save(root / "imagesTr" / "case-05_0000.nii.gz", np.full((6, 7, 8), 5))
    cut(root / "labelsTr" / "case-06.nii.gz")
    report = check_data("volumes", root)
    for needle in (
        "case-03.nii.gz has 1 of 2 images",
        "case-04_0000.nii.gz and case-04_0001.nii.gz differ in shape",
        "case-05_0000.nii.gz: all voxels of channel 0 have one value",
        "case-06.nii.gz: cannot be read",
    ):
        assert [needle in line for line in report.problems].count(True) == 1, report.problems
    assert len(report.problems) == 4
    assert sum(split["void_percent"] for split in report.splits.values()) > 0
    for file in root.glob("*/case-03*"):
        file.unlink()
    data = loaded(root)
    assert data.sided
    good = names(data).index(next(name for name in names(data) if name[-1] not in "456"))
    assert sorted(data[good][1].unique().tolist()) == [0, 1, 255]
