"""What the values stored in label files mean: a class, void, or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glamlib.data.transforms import VOID
from glamlib.errors import InputError


@dataclass(frozen=True)
class LabelCode:
    """How the labels of a dataset are stored.

    Attributes:
        meaning: what each stored value 0..255 is, a class from 0 or 255 for void; a value that is absent is wrong.
        allowed: the same in words, for errors.
    """

    meaning: Mapping[int, int]
    allowed: str

    def check(self, path: Path, values: np.ndarray) -> None:
        """Raise an InputError that names the file and the values unless all uint8 ``values`` mean something."""
        found = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        wrong = [str(value) for value in found if value not in self.meaning]
        if wrong:
            raise InputError(f"{path}: label value(s) {', '.join(wrong)} out of range; allowed: {self.allowed}")

    def decode(self, path: Path, values: np.ndarray) -> np.ndarray:
        """Return stored uint8 ``values`` as classes and 255, of the same shape; raises InputError as `check` does."""
        self.check(path, values)
        table = np.full(256, VOID, np.uint8)
        table[list(self.meaning)] = list(self.meaning.values())
        return table[values]


def plain_code(num_classes: int, void: int | None) -> LabelCode:
    """Return the code of labels that store class numbers, and ``void`` where it is not None."""
    meaning = {value: value for value in range(num_classes)}
    if void is None:
        return LabelCode(meaning, f"0..{num_classes - 1}")
    return LabelCode(meaning | {void: VOID}, f"0..{num_classes - 1} and {void} (void)")
