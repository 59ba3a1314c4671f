"""Windows against explicit loops over patches, in two and three dimensions."""

from itertools import product

import pytest
import torch
from conftest import image

from glamlib.layers.windows import MASKED, WindowLayout, from_windows, shift_mask, to_windows

# (size of the map, window): dividing and not, clipped in one dimension, in all, not square, 3D
MAPS = [
    ((8, 12), (4, 4)),
    ((10, 9), (4, 4)),
    ((9, 14), (3, 7)),
    ((3, 10), (4, 4)),
    ((2, 3), (7, 7)),
    ((5, 5), (1, 1)),
    ((4, 6, 4), (2, 2, 2)),
    ((5, 4, 7), (2, 3, 4)),
    ((2, 6, 5), (3, 3, 3)),
]
CPU = torch.device("cpu")


def places(extent: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All coordinates of a box, row-major."""
    return list(product(*(range(length) for length in extent)))


def members(layout: WindowLayout) -> list[list[tuple[int, ...]]]:
    """For every window, the place of each of its patches on the padded map: windows start at the shift and wrap."""
    windows = []
    for corner in places(layout.grid):
        starts = [g * w + s for g, w, s in zip(corner, layout.window, layout.shift, strict=True)]
        windows.append(
            [
                tuple((start + i) % p for start, i, p in zip(starts, inside, layout.padded, strict=True))
                for inside in places(layout.window)
            ]
        )
    return windows


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("size", "window_size"), MAPS)
def test_to_windows_pads_shifts_and_cuts(size: tuple[int, ...], window_size: tuple[int, ...], shifted: bool) -> None:
    layout = WindowLayout.fit(size, window_size, shifted)
    x = image(2, *size, 3)
    windows = to_windows(x, layout)
    for number, window_places in enumerate(members(layout)):
        for patch, place in enumerate(window_places):
            inside = all(p < s for p, s in zip(place, size, strict=True))
            expected = x[(slice(None), *place)] if inside else torch.zeros(2, 3)
            assert torch.equal(windows[:, number, patch], expected)
    assert torch.equal(from_windows(windows, layout), x)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("size", "window_size"), MAPS)
def test_mask_lets_patches_attend_if_they_lie_as_in_the_map(size, window_size, shifted):
    """Two patches of a window are true neighbours iff they lie as far apart on the map as in the window."""
    layout = WindowLayout.fit(size, window_size, shifted)
    mask = shift_mask(layout, CPU, torch.float32)
    if not any(layout.shift):
        assert mask is None
        return
    inside = places(layout.window)
    expected = torch.full((layout.num_windows, layout.window_area, layout.window_area), MASKED)
    for number, window_places in enumerate(members(layout)):
        for (i, a), (j, b) in product(enumerate(window_places), repeat=2):
            in_map = [x - y for x, y in zip(a, b, strict=True)]
            in_window = [x - y for x, y in zip(inside[i], inside[j], strict=True)]
            if in_map == in_window:
                expected[number, i, j] = 0
    assert torch.equal(mask, expected)
    assert mask.amin() == MASKED  # some window is cut: else the test would show nothing
