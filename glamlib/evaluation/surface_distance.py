"""The Hausdorff distance between the surfaces of two masks, or a percentile of it: exact, in mm, in torch.

Numerically MONAI's ``compute_hausdorff_distance`` (tested), which is not used because it takes scipy, works on the CPU
alone, and runs must also work on a GPU machine that has little more than torch.

A surface voxel is one of the mask with a face on its outside; beyond the volume is outside. The distance of every
surface voxel to the other surface is taken axis by axis (Felzenszwalb and Huttenlocher 2012): along the first it is
counted from both ends, along each further one d2(i) = min over j of d2(j) + (i - j)^2 mm^2, and along the last at the
surface voxels only. So it takes voxels times side operations, where all pairs would take surface times surface.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_AT_ONCE = 1 << 24  # distances of the last axis held at a time: 64 MiB


def hausdorff_distance(guess: Tensor, truth: Tensor, spacing: Sequence[float], percentile: float = 95.0) -> float:
    """Return the larger of the two directed distances' percentiles, in the unit of ``spacing``; NaN if a mask is empty.

    Args:
        guess, truth: bool ``(*size)`` of two or more dimensions, on one device, which does the work.
        spacing: sides of a voxel, one for each dimension.
        percentile: of each surface's distances to the other, interpolated linearly; 100 is the Hausdorff distance.
    """
    box = _bounding_box(guess | truth)
    guess, truth = guess[box], truth[box]
    if not (guess.any() and truth.any()):
        return math.nan
    *between, last, first = sorted(range(guess.ndim), key=lambda axis: guess.shape[axis])
    axes = (first, *between, last)  # the axes between cost voxels times side, so they are the short ones
    guess, truth = guess.permute(axes).contiguous(), truth.permute(axes).contiguous()
    spacing = [spacing[axis] for axis in axes]
    one, other = surface(guess), surface(truth)
    directed = (_distances(a, b, spacing).cpu().numpy() for a, b in ((one, other), (other, one)))
    return max(
        float(np.percentile(distances, percentile)) for distances in directed
    )  # torch's takes 16 million at most


def surface(mask: Tensor) -> Tensor:
    """Return those voxels of ``mask``, bool ``(*size)``, that have a face neighbour which is not in it."""
    padded = mask.new_zeros([n + 2 for n in mask.shape])
    padded[(slice(1, -1),) * mask.ndim] = mask
    inner = mask.clone()
    for axis in range(mask.ndim):
        for start in (0, 2):
            place = [slice(1, -1)] * mask.ndim
            place[axis] = slice(start, start + mask.shape[axis])
            inner &= padded[tuple(place)]
    return mask & ~inner


def _bounding_box(mask: Tensor) -> tuple[slice, ...]:
    """Return the smallest slices that hold all of ``mask``; empty ones where it is empty."""
    slices = []
    for axis in range(mask.ndim):
        held = mask.movedim(axis, 0).flatten(1).any(1).nonzero()
        slices.append(slice(int(held[0]), int(held[-1]) + 1) if len(held) else slice(0, 0))
    return tuple(slices)


def _distances(points: Tensor, targets: Tensor, spacing: Sequence[float]) -> Tensor:
    """Return the distance, float32 ``(n,)``, of every True of ``points`` to the nearest True of ``targets``."""
    squared = _along_first(targets, spacing[0])
    for axis in range(1, points.ndim - 1):
        squared = _along(squared, axis, spacing[axis])
    return _along_last(squared, points.nonzero(), spacing[-1]).sqrt()


def _along_first(targets: Tensor, side: float) -> Tensor:
    """Return squared distances, float32 ``(*size)``, to the nearest True along the first axis; inf where none is."""
    place = torch.arange(len(targets), dtype=torch.float32, device=targets.device)
    place = place.view(-1, *[1] * (targets.ndim - 1))
    before = torch.where(targets, place, -torch.inf).cummax(0).values
    after = torch.where(targets, place, torch.inf).flip(0).cummin(0).values.flip(0)
    return (torch.minimum(place - before, after - place) * side).square_()


def _along(squared: Tensor, axis: int, side: float) -> Tensor:
    """Return the squared distances over one axis more: at i the least over j of ``squared[j] + ((i - j) side)^2``."""
    given = squared.movedim(axis, 0)
    best = given.clone()
    for step in range(1, len(given)):
        for to, of in ((best[step:], given[:-step]), (best[:-step], given[step:])):
            torch.minimum(to, of + (step * side) ** 2, out=to)
    return best.movedim(0, axis)


def _along_last(squared: Tensor, points: Tensor, side: float) -> Tensor:
    """Return what `_along` gives for the last axis, ``(n,)``, at the indices ``points`` ``(n, dimensions)`` alone."""
    place = torch.arange(squared.shape[-1], device=squared.device)
    found = []
    for part in points.split(max(_AT_ONCE // len(place), 1)):
        apart = ((part[:, -1:] - place) * side).square()
        found.append((squared[tuple(part[:, :-1].T)] + apart).amin(1))
    return torch.cat(found)
