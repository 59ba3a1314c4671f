"""Which files belong to which case, which cases to which split. No file is opened but lists of names."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from glamlib.data.folder import NAMED
from glamlib.data.volumes.case import Case
from glamlib.data.volumes.nifti import NiftiCase
from glamlib.errors import InputError, one_of


@dataclass
class Layout:
    """What lies in a data set's folder.

    Attributes:
        folder: where the images lie.
        pairs: image and label by the name of the case, sorted.
        splits: names of the cases of each split; not all of them need be there.
        problems: one line for each file without a partner, and for each name of a split without files.
    """

    folder: Path
    pairs: dict[str, Case]
    splits: dict[str, list[str]]
    problems: list[str] = field(default_factory=list)

    def select(self, split: str) -> list[Case]:
        """Return the pairs of a split; InputError for an unknown split, or if anything is missing."""
        if split not in self.splits:
            raise one_of("split", split, self.splits)
        if self.problems:
            more = "; ..." if len(self.problems) > NAMED else ""
            raise InputError(
                f"{self.folder}: {len(self.problems)} problem(s): {'; '.join(self.problems[:NAMED])}{more}"
            )
        return [self.pairs[name] for name in self.splits[split]]


def match_volumes(
    images: Path, image_name: str, labels: Path, label_name: str
) -> tuple[dict[str, NiftiCase], list[str]]:
    """Pair the .nii and .nii.gz files of two folders by what their names have in common.

    Args:
        images: folder of the images.
        image_name: pattern of an image's whole name without .nii or .nii.gz; its first group names the case.
        labels, label_name: the same of the labels; may be the same folder.

    Returns the pairs by case and one line for every file that has no partner or whose case has two. Other files and
    hidden ones do not count. Raises InputError if a folder is missing or holds no image.
    """
    problems: list[str] = []
    image_files, label_files = (
        _by_case(folder, name, problems) for folder, name in ((images, image_name), (labels, label_name))
    )
    pairs = {case: NiftiCase(case, image_files[case], label_files[case]) for case in image_files if case in label_files}
    problems += [f"image {file.name} has no label" for case, file in image_files.items() if case not in pairs]
    problems += [f"label {file.name} has no image" for case, file in label_files.items() if case not in pairs]
    if not image_files and not label_files:
        raise InputError(f"{images}: no .nii or .nii.gz files of the expected names")
    return pairs, problems


def _by_case(folder: Path, name: str, problems: list[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        found = re.fullmatch(rf"{name}\.nii(\.gz)?", file.name)
        if found and not file.name.startswith("."):
            if found[1] in files:
                problems.append(f"{file.name} is the same case as {files[found[1]].name}")
            files.setdefault(found[1], file)
    return files


def read_names(path: Path) -> list[str] | None:
    """Return the names in a list of them, one a line, or None where there is no such file; InputError if unreadable."""
    try:
        return path.read_text(encoding="utf-8-sig").split()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: cannot be read as a list of names ({problem})") from problem


def missing_cases(pairs: dict[str, Case], splits: dict[str, list[str]]) -> list[str]:
    """Return one line for every name of ``splits`` that has no pair, and for every name that is in two splits."""
    lines, seen = [], {}
    for split, names in splits.items():
        for name in names:
            if name not in pairs:
                lines.append(f"{split}: no image and label of {name}")
            if name in seen:
                lines.append(f"{name} is in {seen[name]} and in {split}")
            seen[name] = split
    return lines
