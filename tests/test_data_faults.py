"""Files that would silently become wrong data: each is read right or named, by the reader and by check-data."""

import numpy as np
import pytest
from PIL import Image

from glamlib.cli import main
from glamlib.data.check import check_data
from glamlib.data.images import read_image, read_label_values
from glamlib.errors import InputError

LABEL = np.zeros((60, 80), np.uint8)
LABEL[10:40, 20:50] = 1
LABEL[30:, 60:] = 2
PHOTO = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8)
RAMP = np.linspace(0, 1, 256, dtype=np.float32).reshape(8, 32)


@pytest.fixture
def root(tmp_path):
    """A good folder with the pair "a"."""
    (tmp_path / "classes.json").write_text('{"classes": ["sea", "land", "ice"], "ignore_index": 255}')
    for kind, values in (("images", PHOTO), ("labels", LABEL)):
        (tmp_path / kind).mkdir()
        Image.fromarray(values).save(tmp_path / kind / "a.png")
    return tmp_path


def test_no_flipped_bit_of_a_label_passes(tmp_path):
    file = tmp_path / "label.png"
    label = Image.fromarray(LABEL)
    label.putpalette([*range(256)] * 3)
    label.save(file)
    assert np.array_equal(read_label_values(file), LABEL)
    content = np.frombuffer(file.read_bytes(), np.uint8)
    for place in np.random.default_rng(0).choice(content.size * 8, 500, replace=False):
        spoilt = np.unpackbits(content)
        spoilt[place] ^= 1
        file.write_bytes(np.packbits(spoilt).tobytes())
        with pytest.raises(InputError, match=r"label\.png: cannot be read as an image"):
            read_label_values(file)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("jpg", {}), ("jpg", {"progressive": True}), ("png", {}), ("webp", {}), ("gif", {}), ("bmp", {})]
    + [("tif", {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_deflate")],
)
def test_no_file_cut_short_passes(tmp_path, suffix, options):
    file = tmp_path / f"photo.{suffix}"
    Image.fromarray(PHOTO).save(file, **options)
    content = file.read_bytes()
    for size in (*range(0, len(content), len(content) // 40), len(content) - 4):
        file.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"photo\.\w+: cannot be read as an image"):
            read_image(file)


@pytest.mark.parametrize(
    ("values", "greys"),
    [
        (RAMP, np.arange(256)),
        (np.arange(256, dtype=np.int32), np.arange(256)),
        (np.arange(256, dtype=np.float32), np.arange(256)),
        (np.arange(256, dtype=np.uint16) * 257, np.arange(256)),
        (np.arange(256, dtype=np.int32) * 257, np.arange(256)),
        (np.arange(256) % 2 == 1, np.arange(256) % 2 * 255),
    ],
    ids=["float 0..1", "int32 0..255", "float 0..255", "16-bit", "int32 0..65535", "1-bit"],
)
def test_values_of_every_kind_are_read_right(tmp_path, values, greys):
    Image.fromarray(values.reshape(8, 32)).save(tmp_path / "grey.tif")
    assert np.array_equal(read_image(tmp_path / "grey.tif"), np.broadcast_to(greys.reshape(8, 32), (3, 8, 32)))
    Image.new("CMYK", (1, 1), (0, 255, 255, 0)).save(tmp_path / "red.tif")
    assert read_image(tmp_path / "red.tif").flatten().tolist() == [255, 0, 0]


@pytest.mark.parametrize("values", [RAMP - 0.5, RAMP * 1e6, RAMP / RAMP[::-1, ::-1]], ids=["below", "above", "inf"])
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_values_of_unknown_range_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(InputError, match=r"odd\.tif: values from .* to .*; allowed: 0\.\.255, 0\.\.65535, or"):
        read_image(tmp_path / "odd.tif")


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_several_frames_are_refused(tmp_path, suffix):
    first, second = Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)
    first.save(tmp_path / f"many.{suffix}", save_all=True, append_images=[second])
    with pytest.raises(InputError, match=rf"many\.{suffix}: 2 frames; allowed: one image in a file"):
        read_image(tmp_path / f"many.{suffix}")


@pytest.mark.parametrize("mode", ["1", "I;16", "F", "RGB"])
def test_labels_of_other_modes_are_refused(root, mode):
    file = root / "labels" / "a.png"
    Image.new(mode, (80, 60)).save(file, "TIFF" if mode == "F" else "PNG")
    with pytest.raises(InputError, match=rf"a\.png: a label image of mode {mode}.*; allowed: palettised \(P\)"):
        read_label_values(file)
    assert len(check_data("folder", root).problems) == 1


def test_a_photo_is_turned_and_a_label_that_is_not_is_named(root):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees, clockwise
    photo = root / "images" / "a.png"
    Image.fromarray(PHOTO).save(photo, exif=exif)
    assert np.array_equal(read_image(photo).permute(1, 2, 0), np.rot90(PHOTO, -1))
    (problem,) = check_data("folder", root).problems
    assert f"{photo} and a.png differ in size: 80 x 60 and 60 x 80" in problem
    Image.fromarray(np.rot90(LABEL, -1).copy()).save(root / "labels" / "a.png")
    assert check_data("folder", root).ok


def test_labels_without_a_class_and_classes_without_a_label_are_named(root):
    Image.fromarray(PHOTO).save(root / "images" / "b.png")
    Image.fromarray(np.full_like(LABEL, 255)).save(root / "labels" / "b.png")
    assert check_data("folder", root).warnings == [f"{root / 'labels' / 'b.png'}: no labelled pixel, all are void"]
    Image.fromarray(LABEL // 2).save(root / "labels" / "a.png")
    report = check_data("folder", root)
    assert report.ok
    assert report.warnings[1] == "no label holds ice"


def test_masks_of_0_and_255_with_255_as_void_are_a_problem(root):
    Image.fromarray((LABEL > 0) * np.uint8(255)).save(root / "labels" / "a.png")
    (problem,) = check_data("folder", root).problems
    assert problem == f"{root}: every labelled pixel is 'sea'; is its counterpart taken for void?"


def test_names_that_no_terminal_can_print_are_shown(root, capsys):
    (root / "images" / "bad\udcff.png").write_bytes(b"")
    assert main(["check-data", "folder", str(root)]) == 1
    assert r"image bad\udcff.png has no label" in capsys.readouterr().out
