"""A case as it lies on disk, whatever its files are."""

from pathlib import Path
from typing import Protocol

import numpy as np

from glamlib.data.volumes.nifti import Spacing


class Case(Protocol):
    """An image and its label, not yet read: `NiftiCase` in two files, `PackedCase` in a pack.

    Attributes:
        name: the case's name.
        image, label: where the two are, for messages.
    """

    name: str
    image: Path
    label: Path

    def spacing(self) -> Spacing:
        """Return the sides (depth, height, width) of a voxel in mm."""

    def read(self) -> tuple[np.ndarray, np.ndarray, Spacing]:
        """Return image values and label values, both (D, H, W), and the spacing; InputError for what is bad."""
