"""What a look through a dataset found, as text for a terminal and as plain values for JSON."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from glamlib.data.transforms import VOID


@dataclass
class SplitReport:
    """What one split holds.

    Attributes:
        pairs: images with a label of the same name.
        sizes: number of images by "height x width" in pixels.
        values: number of pixels by label value, as stored in the files (void is not 255 there).
        class_percent: share of each class in the pixels that belong to a class; empty if none does.
        void_percent: share of void in the pixels that belong to a class or to void.
    """

    pairs: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    values: Counter[int] = field(default_factory=Counter)
    class_percent: dict[str, float] = field(default_factory=dict)
    void_percent: float = 0.0

    def set_percentages(self, classes: tuple[str, ...], meaning: Mapping[int, int] | None = None) -> None:
        """Fill in the shares from ``values``; a value that is neither a class nor void counts nowhere.

        ``meaning`` says which class each stored value is, or 255 for void; None: the class of the same number.
        """
        if meaning is None:
            meaning = {value: value for value in range(len(classes))}
        by_class = Counter()
        for value, number in meaning.items():
            by_class[number] += self.values[value]
        pixels, void_pixels = [by_class[number] for number in range(len(classes))], by_class[VOID]
        if sum(pixels):
            self.class_percent = {name: 100 * n / sum(pixels) for name, n in zip(classes, pixels, strict=True)}
        if sum(pixels) + void_pixels:
            self.void_percent = 100 * void_pixels / (sum(pixels) + void_pixels)

    def summary(self) -> str:
        """Return sizes and label values on a line."""
        sizes = ", ".join(f"{size} ({count})" for size, count in sorted(self.sizes.items()))
        values = ", ".join(map(str, sorted(self.values)))
        return f"height x width: {sizes or 'none'}; label values: {values or 'none'}"

    def to_dict(self) -> dict:
        """Return what was found as plain dicts, lists, numbers and strings, for JSON."""
        return {
            "pairs": self.pairs,
            "sizes": dict(sorted(self.sizes.items())),
            "label_values": sorted(self.values),
            "class_percent": self.class_percent,
            "void_percent": self.void_percent,
        }


@dataclass
class CheckReport:
    """What `check_data` found; ``problems`` has one line for every bad file, and is empty for good data."""

    name: str
    path: str
    splits: dict[str, SplitReport] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there was nothing to report."""
        return not self.problems

    def to_dict(self) -> dict:
        """Return the report as plain dicts, lists, numbers and strings, for JSON."""
        splits = {name: split.to_dict() for name, split in self.splits.items()}
        return {"name": self.name, "path": self.path, "ok": self.ok, "splits": splits, "problems": self.problems}

    def render(self) -> str:
        """Return the report as text for a terminal: a paragraph a split, a table of class shares, then the problems."""
        lines = [f"{self.name} at {self.path}"]
        for name, split in self.splits.items():
            lines.append(f"{name}: {split.pairs} pairs; {split.summary()}")
        classes = list(dict.fromkeys(c for split in self.splits.values() for c in split.class_percent))
        if classes:
            width = max(len(label) for label in (*classes, "void, % of all"))
            lines += ["", "% of class pixels".ljust(width) + "".join(f"{name:>9}" for name in self.splits)]
            for c in classes:
                shares = (split.class_percent.get(c) for split in self.splits.values())
                lines.append(c.ljust(width) + "".join(f"{'-' if s is None else f'{s:.2f}':>9}" for s in shares))
            voids = (f"{split.void_percent:9.2f}" for split in self.splits.values())
            lines.append("void, % of all".ljust(width) + "".join(voids))
        lines += ["", f"{len(self.problems)} problem(s)", *(f"  {problem}" for problem in self.problems)]
        return "\n".join(lines)
