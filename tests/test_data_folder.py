import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from glamlib.data.datasets import InMemory, has_dataset, load_dataset
from glamlib.data.images import FolderDataset, voc_colour
from glamlib.errors import InputError

LABEL = np.array([[0, 1, 2, 7], [1, 1, 0, 7], [2, 2, 2, 0]], np.uint8)
CLASSES = {"classes": ["sea", "land", "ice"], "ignore_index": 7}


def save_label(path, values=LABEL):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def save_image(path, shape=(3, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(shape[0] * shape[1] * 3, dtype=np.uint8).reshape(*shape, 3)).save(path)


@pytest.fixture
def root(tmp_path):
    """Two pairs in the split "train", void 7."""
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    for name in ("a", "b"):
        save_image(tmp_path / "train" / "images" / f"{name}.png")
        save_label(tmp_path / "train" / "labels" / f"{name}.png")
    return tmp_path


def test_items_are_the_files_pixels_with_void_mapped(root):
    data = FolderDataset(root, "train")
    image, label = data[0]
    assert (len(data), data.name(0), data.name(1)) == (2, "a", "b")
    assert data.classes == ("sea", "land", "ice")
    assert data.ignore_index == 255
    assert image.dtype == label.dtype == torch.uint8
    assert image.tolist() == np.arange(36).reshape(3, 4, 3).transpose(2, 0, 1).tolist()
    assert label.tolist() == [[0, 1, 2, 255], [1, 1, 0, 255], [2, 2, 2, 0]]
    assert [name for _, name in zip(data, "xyz", strict=False)] == ["x", "y"]  # iteration ends


def test_images_and_labels_may_lie_in_the_root(root):
    for kind in ("images", "labels"):
        (root / "train" / kind).rename(root / kind)
    assert len(FolderDataset(root)) == 2


def test_palettised_labels_give_indices_not_colours(root):
    label = Image.fromarray(LABEL)
    label.putpalette([9, 9, 9] * 256)  # every colour the same: only the index tells values apart
    label.save(root / "train" / "labels" / "a.png")
    assert FolderDataset(root, "train")[0][1].tolist() == np.where(LABEL == 7, 255, LABEL).tolist()


@pytest.mark.parametrize(
    ("pixels", "rgb"),
    [
        (Image.new("L", (4, 3), 40), (40, 40, 40)),
        (Image.new("LA", (4, 3), (40, 9)), (40, 40, 40)),
        (Image.new("RGBA", (4, 3), (1, 2, 3, 4)), (1, 2, 3)),
        (Image.new("RGB", (4, 3), (1, 2, 3)).quantize(2), (1, 2, 3)),
    ],
    ids=["L", "LA", "RGBA", "P"],
)
def test_every_image_mode_becomes_rgb(root, pixels, rgb):
    pixels.save(root / "train" / "images" / "a.png")
    assert FolderDataset(root, "train")[0][0][:, 2, 3].tolist() == list(rgb)


def test_jpegs_and_capital_suffixes_count_and_stray_files_do_not(root):
    images = root / "train" / "images"
    Image.new("RGB", (4, 3), (50, 50, 50)).save(images / "c.JPG", quality=95)
    Image.new("CMYK", (4, 3)).save(images / "d.jpeg")
    for name in "cd":
        save_label(root / "train" / "labels" / f"{name}.png")
    for stray in ("Thumbs.db", "._a.png"):
        (images / stray).write_bytes(b"x")
    data = FolderDataset(root, "train")
    assert [data.name(index) for index in range(len(data))] == ["a", "b", "c", "d"]
    assert abs(int(data[2][0][0, 0, 0]) - 50) <= 1
    assert data[3][0].flatten(1).unique().tolist() == [255]  # no ink is white


def test_size_resizes_the_label_to_existing_values_only(root):
    plain, doubled = FolderDataset(root, "train"), FolderDataset(root, "train", size=(6, 8))
    image, label = doubled[0]
    assert image.shape == (3, 6, 8)
    assert label.tolist() == np.kron(plain[0][1].numpy(), np.ones((2, 2), int)).tolist()
    assert FolderDataset(root, "train", size=[1, 2])[0][0].shape == (3, 1, 2)


def test_palette_is_read_or_made(root):
    # The PASCAL VOC development kit's first colours and its 15th ("person").
    voc = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128)}
    assert {value: voc_colour(value) for value in voc} == voc
    assert FolderDataset(root, "train").palette == (voc[0], voc[1], voc[2])
    colours = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]]  # the fourth is the void's
    (root / "classes.json").write_text(json.dumps(CLASSES | {"palette": colours}))
    assert FolderDataset(root, "train").palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


@contextmanager
def refused(*needles):
    """Expect an InputError of one line in which every needle occurs."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [needle for needle in needles if needle not in message] == [], message


def test_missing_folders_say_what_is_expected(root):
    with refused("nowhere", "no such folder", "classes.json", "images/NAME"):
        FolderDataset(root / "nowhere")
    with refused("'tset'", "train"):
        FolderDataset(root, "tset")
    with refused("images", "no such folder", "labels/NAME.png"):
        FolderDataset(root)
    for file in root.glob("train/*/*"):
        file.unlink()
    with refused("images", "no images"):
        FolderDataset(root, "train")
    (root / "train" / "labels").rename(root / "train" / "masks")
    with refused("labels", "no such folder", "labels/NAME.png"):
        FolderDataset(root, "train")
    (root / "classes.json").unlink()
    with refused("classes.json", "no such file"):
        FolderDataset(root, "train")


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("{not json", "cannot be read as JSON"),
        ('["sea"]', "must be {"),
        ("{}", "missing entry: classes"),
        ('{"classes": []}', "classes=[]: must be a list"),
        ('{"classes": ["sea", 3]}', "classes=['sea', 3]: must be a list"),
        ('{"classes": ["sea", "sea"]}', "classes=['sea', 'sea']: must be 1 to 255 different names"),
        ('{"classes": ["sea"], "ignore_index": "7"}', "ignore_index='7': must be a whole number from 1 to 255"),
        ('{"classes": ["sea", "land"], "ignore_index": 1}', "ignore_index=1: must be null or from 2 to 255"),
        ('{"classes": ["sea"], "ignore_index": 256}', "ignore_index=256: must be a whole number from 1 to 255"),
        ('{"classes": ["sea"], "palette": [[1, 2]]}', "palette=[[1, 2]]: must be a list"),
        ('{"classes": ["sea"], "palette": [[1, 2, 256]]}', "palette=[[1, 2, 256]]: must be a list"),
        ('{"classes": ["sea", "land"], "palette": [[1, 2, 3]]}', "palette: has 1 colours; must be 2"),
    ],
)
def test_malformed_classes_json_is_refused(root, text, needle):
    (root / "classes.json").write_text(text)
    with refused("classes.json", needle):
        FolderDataset(root, "train")


def test_files_without_partner_are_counted_and_the_first_named(root):
    for name in "cdef":
        save_image(root / "train" / "images" / f"{name}.png")
    save_label(root / "train" / "labels" / "z.png")
    with refused("train: 5 file(s)", "image c.png has no label c.png", "image e.png"):
        FolderDataset(root, "train")
    for name in "cdef":
        (root / "train" / "images" / f"{name}.png").unlink()
    save_image(root / "train" / "images" / "a.jpg")
    with refused("train: 2 file(s)", "label z.png has no image", "image a.png has the same name as a.jpg"):
        FolderDataset(root, "train")


def test_values_out_of_range_are_named(root):
    save_label(root / "train" / "labels" / "b.png", np.array([0, 255, 3, 7], np.uint8)[LABEL % 4])
    data = FolderDataset(root, "train")
    assert data[0][1].max() == 255  # the good file reads
    with refused("b.png", "3, 255", "allowed: 0..2 and 7 (void)"):
        data[1]
    (root / "classes.json").write_text(json.dumps(CLASSES | {"ignore_index": None}))
    with refused("a.png: label value(s) 7 out of range; allowed: 0..2"):
        FolderDataset(root, "train")[0]


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"no image"])
def test_damaged_files_are_named(root, kind, damage):
    file = root / "train" / kind / "a.png"
    file.write_bytes(damage(file.read_bytes()))
    with refused(str(file), "cannot be read as an image"):
        FolderDataset(root, "train")[0]


def test_different_sizes_are_refused(root):
    save_image(root / "train" / "images" / "a.png", (4, 4))
    with refused("a.png", "4 x 4 and 3 x 4"):
        FolderDataset(root, "train")[0]


@pytest.mark.parametrize("size", [(0, 4), (4,), "44", 4, (4.0, 4), (True, 4)])
def test_bad_sizes_are_refused(root, size):
    with refused(f"size={size!r}: must be a list"):
        FolderDataset(root, "train", size=size)


def test_load_dataset_takes_a_root_or_finds_it_by_glam_data(root, monkeypatch):
    monkeypatch.delenv("GLAM_DATA", raising=False)
    assert load_dataset("folder", "train", root=root, size=(6, 8))[0][0].shape == (3, 6, 8)
    assert not has_dataset("folder")
    with refused("'folder'", "GLAM_DATA"):
        load_dataset("folder", "train")
    folder = root / "home" / "folder"
    folder.mkdir(parents=True)
    for name in ("train", "classes.json"):
        (root / name).rename(folder / name)
    monkeypatch.setenv("GLAM_DATA", str(root / "home"))
    assert has_dataset("folder")
    assert len(load_dataset("folder", "train")) == 2


def test_unknown_dataset_names_are_refused():
    for call in (lambda: load_dataset("camvidd", "train"), lambda: has_dataset("camvidd")):
        with refused("'camvidd'", "folder, camvid"):
            call()


def test_in_memory_is_the_same_dataset_read_once(root):
    data = FolderDataset(root, "train")
    held = InMemory(data)
    assert (len(held), held.name(1), held.ignore_index) == (2, "b", 255)
    assert (held.classes, held.palette) == (data.classes, data.palette)
    assert all(torch.equal(mine, theirs) for i in range(2) for mine, theirs in zip(held[i], data[i], strict=True))
    for file in root.glob("train/*/*"):
        file.unlink()
    assert held[1][0].shape == (3, 3, 4)
    with pytest.raises(IndexError):
        held[2]
