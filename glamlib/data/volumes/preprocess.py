"""From a scanner's voxels to a network's: intensities normalised, voxels of one size.

scipy.ndimage does the interpolation: nothing here needs more, and data preparation then needs no torch.
"""

import numpy as np

from glamlib.data.volumes.nifti import Spacing
from glamlib.errors import InputError


def check_spacing(spacing: object) -> Spacing:
    """Return ``spacing`` as three floats in mm (depth, height, width); InputError unless three numbers above 0."""
    numbers = isinstance(spacing, tuple | list) and len(spacing) == 3
    if not numbers or not all(type(side) in (int, float) and 0 < side < np.inf for side in spacing):
        raise InputError(f"spacing {spacing!r} cannot be used; allowed: (depth, height, width), three mm above 0")
    depth, height, width = map(float, spacing)
    return depth, height, width


def z_score(values: np.ndarray) -> np.ndarray:
    """Return float32 with the mean and deviation of the voxels that are not 0 taken out of all voxels.

    MR intensities have no unit, and differ from scan to scan; 0 is what lies outside a stripped or cropped volume (the
    released 3D code normalises non-zero voxels too). Raises InputError where those voxels all have one value.
    """
    inside = values[values != 0].astype(np.float64)
    deviation = inside.std() if inside.size else 0.0
    if deviation == 0:
        raise InputError("all voxels that are not 0 have one value: there is nothing to see")
    return ((values - inside.mean()) / deviation).astype(np.float32)


def window(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return float32 with ``values`` clipped to low..high (CT: Hounsfield units) and mapped to -1..1."""
    clipped = np.clip(values, low, high).astype(np.float32)
    return (clipped - low) / (high - low) * 2 - 1


def resample_image(values: np.ndarray, old: Spacing, new: Spacing) -> np.ndarray:
    """Return ``values`` (D, H, W) as float32 in voxels of ``new`` mm, by linear interpolation.

    The volume keeps its centre, and its extent but for the rounding to whole voxels. Along axes whose voxels grow by a
    factor f it is smoothed first (Gaussian, deviation (f - 1) / 2 old voxels), against aliasing.
    """
    from scipy import ndimage

    old_side, new_side = np.array(old), np.array(new)
    values = values.astype(np.float32)
    if np.allclose(old_side, new_side, rtol=1e-3):
        return values
    factor = new_side / old_side
    values = ndimage.gaussian_filter(values, np.maximum(factor - 1, 0) / 2, mode="nearest")
    have = np.array(values.shape)
    want = np.maximum(np.round(have / factor), 1).astype(int)
    offset = (have - 1) / 2 - factor * (want - 1) / 2
    return ndimage.affine_transform(values, factor, offset, tuple(want), order=1, mode="nearest")


def resample_label(label: np.ndarray, old: Spacing, new: Spacing) -> np.ndarray:
    """Return class numbers ``label`` (D, H, W) in voxels of ``new`` mm: each takes the class with the largest share.

    The shares are the classes' masks, resampled as `resample_image` does; nearest neighbour would leave jagged borders.
    """
    if np.allclose(old, new, rtol=1e-3):
        return label
    best, most = None, None
    for number in np.unique(label):  # one mask at a time: all at once would not fit
        share = resample_image(label == number, old, new)
        if best is None:
            best, most = np.full(share.shape, number, dtype=label.dtype), share
        else:
            best[share > most] = number
            most = np.maximum(share, most)
    return best
