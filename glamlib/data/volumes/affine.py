"""Patches of a volume under an affine map, in numpy and torch.

As scipy.ndimage's ``affine_transform`` of order 1 and 0 with ``mode="constant"`` (tested), which is not used because
training must also work on a GPU machine that has little more than torch.
"""

import numpy as np
import torch
import torch.nn.functional as F


def places(matrix: np.ndarray, offset: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Return where a patch's voxels o lie in the volume, ``matrix @ o + offset``: float64 (3, *size)."""
    axes = np.ogrid[tuple(slice(n) for n in size)]
    return np.stack(
        [sum(row[k] * axes[k] for k in range(3)) + start for row, start in zip(matrix, offset, strict=True)]
    )


def sample_linear(values: np.ndarray, at: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return ``values`` (C, D, H, W) float32 at `places` (3, *size), interpolated linearly: float32 (C, *size).

    Beyond the outermost voxels' centres a channel has its value of ``outside`` (C,).
    """
    shape = values.shape[1:]
    grid = np.stack([at[k] / max(shape[k] - 1, 1) * 2 - 1 for k in (2, 1, 0)], axis=-1).astype(np.float32)
    found = F.grid_sample(
        torch.from_numpy(values)[None], torch.from_numpy(grid)[None], padding_mode="border", align_corners=True
    )[0].numpy()
    return np.where(_inside(at, shape), found, np.asarray(outside, np.float32)[:, None, None, None])


def sample_nearest(values: np.ndarray, at: np.ndarray, outside: int) -> np.ndarray:
    """Return ``values`` (D, H, W) at the voxels nearest to `places` (3, *size), beyond as in `sample_linear`."""
    index = np.zeros(at.shape[1:])  # into the flat volume: taking from it is faster than by three indices
    for place, side in zip(at, values.shape, strict=True):
        index = index * side + np.clip(np.floor(place + 0.5), 0, side - 1)
    found = values.reshape(-1).take(index.astype(np.intp))
    return np.where(_inside(at, values.shape), found, values.dtype.type(outside))


def _inside(at: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return whether `places` (3, *size) lie among the voxels' centres: bool (*size)."""
    last = np.array(shape)[:, None, None, None] - 1
    return ((at >= 0) & (at <= last)).all(axis=0)
