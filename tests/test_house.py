"""The rooms of glamlib: imports go down one list, never up and never in a circle; rooms and files stay small."""

import ast
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import python

import glamlib

ROOT = Path(glamlib.__file__).parent
# From the top down: each may import from those after it
ROOMS = (
    *("__main__", "cli", "report", "bench", "runs", "training", "evaluation", "cost", "zoo", "backbones", "released"),
    *("models", "layers", "studies", "data", "files", "errors", "torchvision_schemas"),
)
FILES = {".".join(file.relative_to(ROOT.parent).with_suffix("").parts): file for file in ROOT.rglob("*.py")}


def imported_by(name: str) -> set[str]:
    """Return the files of glamlib that one imports, inside its functions, too; a room is its ``__init__``."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {part for part in parts if part in FILES or f"{part}.__init__" in FILES} or {node.module}
    return {f"{each}.__init__" if f"{each}.__init__" in FILES else each for each in found} & FILES.keys() - {name}


IMPORTS = {name: imported_by(name) for name in FILES}


def test_imports_go_down():
    def height(name: str) -> int:
        return ROOMS.index(name.split(".")[1])

    assert "glamlib.layers.windows" in IMPORTS["glamlib.layers.block"]  # imports are seen
    rooms = {name: each for name, each in IMPORTS.items() if name != "glamlib.__init__"}
    upward = [
        f"{name} imports {other}"
        for name, others in rooms.items()
        for other in others - {"glamlib.__init__"}
        if height(other) < height(name)
    ]
    upward += [f"{name} imports the package" for name, others in rooms.items() if "glamlib.__init__" in others]
    assert upward == []


def test_no_file_imports_itself_through_others():
    assert set(TopologicalSorter(IMPORTS).static_order()) == FILES.keys()  # CycleError names a circle


def test_rooms_and_files_are_small():
    sizes = {name: len(file.read_text().splitlines()) for name, file in FILES.items()}
    assert {name: size for name, size in sizes.items() if size > 350} == {}
    files = Counter(name.split(".")[1] for name in FILES if not name.endswith("__init__"))
    assert {room: count for room, count in files.items() if count > 12} == {}
    assert sum(sizes.values()) <= 10_500


def test_glamlib_is_imported_first_and_timm_after():
    """Also where torchvision's compiled part does not fit torch (its wheel beside a CPU build)."""
    done = python("-c", "import glamlib, torchvision, timm; timm.create_model('resnet18')")
    assert done.returncode == 0, done.stderr
