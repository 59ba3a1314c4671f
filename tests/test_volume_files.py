"""A volume from NIfTI files: what is read, what is refused, and how it is resampled and scaled."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import refused
from nifti_files import NAME, cut, hippocampus, save

from glamlib.data.datasets import load_volumes
from glamlib.data.layout import Labels
from glamlib.data.volume_sets import SOFT_TISSUE
from glamlib.data.volumes import normalised, read_grid, read_volume, resample_image, resample_label

# Reading


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SLA"])
def test_every_orientation_is_read_as_the_same_volume(tmp_path, codes):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 99, (4, 5, 6))  # x, y, z
    plain = nib.Nifti1Image(values.astype(np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(plain.affine), nib.orientations.axcodes2ornt(codes))
    nib.save(plain.as_reoriented(turn), tmp_path / "a.nii.gz")
    assert "".join(nib.aff2axcodes(nib.load(tmp_path / "a.nii.gz").affine)) == codes
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.spacing == (3.0, 2.0, 1.0)
    assert read_grid(tmp_path / "a.nii.gz") == (volume.values.shape, volume.spacing)
    assert np.array_equal(volume.values, values.transpose(2, 1, 0))
    assert np.allclose(volume.affine, plain.affine)


def test_axes_of_one_behind_the_third_are_dropped_and_scaled_values_are_scaled(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    stored = np.asanyarray(nib.load(tmp_path / "a.nii").dataobj)[..., 0]
    assert np.allclose(read_volume(tmp_path / "a.nii").values, stored.T)


@pytest.mark.parametrize(("unit", "in_mm"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
def test_spacings_are_converted_to_mm(tmp_path, unit, in_mm):
    affine = np.array([[0, 0, 0.02, 5], [0, 0.03, 0, 6], [0.04, 0, 0, 7], [0, 0, 0, 1]])
    affine[:3] /= in_mm
    save(tmp_path / "a.nii.gz", np.zeros((2, 3, 4)), affine, unit=unit)
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.spacing == pytest.approx((0.04, 0.03, 0.02))
    assert read_grid(tmp_path / "a.nii.gz")[1] == volume.spacing
    assert volume.affine[:3, 3] == pytest.approx([5, 6, 7])


def spoil_middle(path):
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes(40) + data[80:])


def spoil_checksum(path):
    """Change a byte of the checksum: the file reads as if a byte of the voxels had been changed."""
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(bytes(data))


def patch(path, offset, content):
    """Overwrite bytes of the uncompressed file."""
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:offset] + content + data[offset + len(content) :]))


BAD_FILES = {
    "missing": (lambda path: path.unlink(), "cannot be read as NIfTI"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as NIfTI"),
    "text": (lambda path: path.write_bytes(b"not a volume"), "cannot be read as NIfTI"),
    "gzipped text": (lambda path: path.write_bytes(gzip.compress(b"text" * 500)), "cannot be read as NIfTI"),
    "cut short": (cut, "cannot be read as NIfTI"),
    "a wrong checksum": (spoil_checksum, "CRC"),
    "an unknown type": (lambda path: patch(path, 70, b"\xff\x00"), "data code 255"),
    "damaged": (spoil_middle, "cannot be read as NIfTI"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read as NIfTI"),
    "4D": (lambda path: save(path, np.zeros((6, 7, 8, 2))), "4 axes (6 x 7 x 8 x 2); allowed: volumes of three"),
    "2D": (lambda path: save(path, np.zeros((6, 7))), "2 axes (6 x 7)"),
    "complex": (lambda path: save(path, np.ones((6, 7, 8)), dtype=np.complex64), "values are complex64"),
    "not a number": (lambda path: save(path, np.full((6, 7, 8), np.nan), dtype=np.float32), "not finite"),
    "flat affine": (lambda path: patch(path, 312, bytes(16)), "its affine maps no voxel to a place"),  # srow_z
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_a_bad_file_is_one_clear_error(tmp_path, kind, folder):
    volumes = load_volumes("hippocampus", "train", root=hippocampus(tmp_path, 3))
    path = tmp_path / folder / NAME
    spoil, needle = BAD_FILES[kind]
    spoil(path)
    with refused(path, needle):
        volumes[0]
    volumes[1]  # the others are there


SHIFTED = np.array([[1, 0, 0, 2.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("shape", "affine", "needle"),
    [
        ((6, 7, 9), np.eye(4), "shape: 8 x 7 x 6 and 9 x 7 x 6 voxels"),
        ((6, 8, 7), np.eye(4), "shape: 8 x 7 x 6 and 7 x 8 x 6 voxels"),
        ((6, 7, 8), np.diag([1.0, 1.0, 1.5, 1.0]), "affine: voxels lie up to 3.5 mm apart"),
        ((6, 7, 8), SHIFTED, "up to 2 mm apart"),
        ((6, 7, 8), np.diag([-1.0, 1.0, 1.0, 1.0]), "apart"),  # mirrored
        ((6, 7, 8), np.eye(4) + 0.005 * (SHIFTED - np.eye(4)), None),  # rounded differently
    ],
)
def test_an_image_and_a_label_of_different_voxels_are_refused(tmp_path, shape, affine, needle):
    volumes = load_volumes("hippocampus", "train", root=hippocampus(tmp_path, 1))
    save(tmp_path / "labelsTr" / NAME, np.zeros(shape), affine)
    if needle is None:
        volumes[0]
        return
    with refused(needle, f"imagesTr/{NAME} and {NAME} differ"):
        volumes[0]


def test_a_label_stored_in_another_orientation_meets_its_image(tmp_path):
    volumes = load_volumes("hippocampus", "train", root=hippocampus(tmp_path, 1))
    path = tmp_path / "labelsTr" / NAME
    before = volumes[0]
    turned = nib.load(path).as_reoriented(nib.orientations.axcodes2ornt("LPI"))
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    assert all(torch.equal(a, b) for a, b in zip(before, volumes[0], strict=True))


@pytest.mark.parametrize(
    ("values", "needle"),
    [
        ([0, 3, 7], "a: unknown label value(s) 3, 7; allowed: -2, 0..2, 9"),
        ([0, 0.5], "unknown label value(s) 0.5;"),
        ([0, 1.002], "unknown label value(s) 1.002;"),
        ([-1, 0], "unknown label value(s) -1;"),
        ([0, 1e9], "unknown label value(s) 1e+09;"),
        (range(3, 9), "unknown label value(s) 3, 4, 5, 6, 7, ...;"),
    ],
    ids=str,
)
def test_unknown_label_values_are_named(values, needle):
    with refused(needle):
        Labels((), dict.fromkeys((2, 1, 0, -2, 9), 0), sided=False).decode(Path("a"), np.array(values))


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_class_numbers_are_those_of_the_map_also_of_near_integers(dtype):
    values = np.array([[[9, -2, 4, 9]]], dtype)
    if dtype != np.int16:
        values += np.array([5e-7, -1e-6, -9e-4, 0])  # as resampling leaves them
    found = Labels((), {4: 0, -2: 7, 9: 3}, sided=False).decode(Path("a"), values)
    assert found.tolist() == [[[3, 7, 0, 3]]]
    assert found.dtype == np.uint8


def test_mr_is_normalised_by_what_is_not_0():
    values = np.array([0, 0, 0, 2, 4, 6], dtype=np.uint8)
    assert normalised(values) == pytest.approx((values - 4.0) / np.sqrt(8 / 3))
    assert normalised(values).dtype == np.float32
    assert normalised(np.array([0, 5, 5])).tolist() == [-5, 0, 0]  # a mask


def test_computed_tomography_is_clipped_and_scaled():
    assert normalised(np.array([-1000, -175, 37.5, 250, 3000]), SOFT_TISSUE).tolist() == [-1, -1, 0, 1, 1]


def millimetres(shape, spacing):
    """Return the places of voxels, in mm from the volume's centre."""
    axes = ((np.arange(n) - (n - 1) / 2) * side for n, side in zip(shape, spacing, strict=True))
    return np.meshgrid(*axes, indexing="ij")


def test_resampling_samples_at_places_in_mm():
    """An image linear in mm stays what it is at every new voxel's place, whose origin is the volume's centre."""
    shape, old, new = (9, 12, 10), (3.0, 1.0, 1.5), (1.5, 1.5, 1.0)

    def ramp(shape, spacing):
        z, y, x = millimetres(shape, spacing)
        return 2 * z - y + 3 * x

    found = resample_image(ramp(shape, old), old, new)
    assert found.shape == (18, 8, 15)
    inner = (slice(2, -2),) * 3  # beyond the outermost old voxels' centres the edge is repeated
    np.testing.assert_allclose(found[inner], ramp(found.shape, new)[inner], atol=1e-3)


def test_resampled_labels_keep_their_shape_there_and_back():
    old, new = (1.0, 1.0, 1.0), (2.5, 1.3, 0.7)
    squared = sum(place**2 for place in millimetres((40, 40, 40), old))
    label = (squared <= 12**2).astype(np.uint8) * 3 + (squared <= 6**2)
    there = resample_label(label, old, new)
    assert there.shape == (16, 31, 57)
    assert set(np.unique(there)) == {0, 3, 4}
    back = resample_label(there, new, old)
    for number in (3, 4):
        one, two = label == number, back == number
        assert 2 * np.count_nonzero(one & two) / (one.sum() + two.sum()) > 0.9
        assert np.count_nonzero(there == number) * np.prod(new) == pytest.approx(one.sum(), rel=0.1)  # mm^3


def test_half_the_voxels_a_side_is_the_majority():
    label = np.zeros((4, 4, 4), dtype=np.uint8)
    label[:2, :2, :2] = 1
    label[2:, 2:, 2:].flat[:3] = 1  # 3 of 8
    expected = np.zeros((2, 2, 2), dtype=np.uint8)
    expected[0, 0, 0] = 1
    assert np.array_equal(resample_label(label, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)), expected)
