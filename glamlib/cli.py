"""The command line: ``python -m glamlib models | cost | check-data | train | evaluate | predict``.

Bad input is one line on stderr and exit status 2. What needs torch is imported by the command that needs it, so that
``--help`` does not wait for it.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from glamlib.errors import InputError
from glamlib.run_commands import evaluate, predict, train

if TYPE_CHECKING:
    from glamlib.cost.count import Cost

Name = Positional[Annotated[str, arg(metavar="NAME")]]
Json = FlagCreatePairsOff[Annotated[bool, arg(name="json")]]


def models(pattern: Positional[Annotated[str, arg(metavar="PATTERN")]] = "*") -> int:
    """Print the names of the models, one a line.

    Args:
        pattern: only names that match it, for example 'glam_*_tiny_*'.
    """
    from glamlib.zoo import list_models

    for name in list_models(pattern):
        print(name)
    return 0


def cost(
    name: Name,
    size: Annotated[tuple[int, int] | tuple[int, int, int], arg(metavar="[D] H W")],
    classes: int = 150,
    json_output: Json = False,
) -> int:
    """Print what a model costs: parameters and multiply-adds (1e9, "gmacs") by component.

    Args:
        name: a model; the command `models` lists them.
        size: height and width of the image in pixels, any from 1 on; for volumes (of one channel) the depth first.
        classes: number of classes.
        json_output: print JSON instead of a table.
    """
    import torch

    from glamlib.cost import count as costs
    from glamlib.zoo import create_model, model_config

    *depth, height, width = size
    given = " ".join(str(side) for side in size)
    if min(size) < 1:
        raise InputError(f"size={given}: {'depth, ' if depth else ''}height and width must be at least 1")
    volumes = model_config(name).ndim == 3
    if volumes != bool(depth):
        raise InputError(f"size={given}: {name} takes {'a depth, a height' if volumes else 'a height'} and a width")
    with torch.device("meta"):  # no memory for the weights: only their shapes count
        model = create_model(name, num_classes=classes, in_channels=1 if volumes else 3)
    found = costs.cost(model, height, width, depth=depth[0] if volumes else None)
    print(found.to_json(name, classes) if json_output else _cost_table(found, name, classes))
    return 0


def _cost_table(found: "Cost", name: str, classes: int) -> str:
    """Return a line a component, with the total last."""
    place = f"one image of {found.height} x {found.width} pixels"
    if found.depth is not None:
        place = f"one volume of {found.depth} x {found.height} x {found.width} voxels"
    rows = [f"{name}, {classes} classes, {place}"]
    rows.append(f"{'component':<16}{'parameters':>16}{'gmacs':>16}")
    for component in sorted(found.parameters, key=lambda component: component == "total"):
        rows.append(f"{component:<16}{found.parameters[component]:>16,}{found.gmacs[component]:>16.6f}")
    return "\n".join(rows)


def check_data(name: Name, path: Positional[Annotated[str, arg(metavar="PATH")]], json_output: Json = False) -> int:
    """Open every file of a dataset and print what is there; exit status 1 if anything is wrong with it.

    Args:
        name: which dataset: camvid, ade20k, cityscapes, folder (images), hippocampus, brains or synapse (volumes).
        path: the folder that holds it.
        json_output: print JSON instead of text.
    """
    from glamlib.data import check

    report = check.check_data(name, path)
    print(json.dumps(report.to_dict()) if json_output else report.render())
    return 0 if report.ok else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (of ``sys.argv`` unless ``arguments`` are given) and return its exit status."""
    app = tyro.extras.SubcommandApp()
    for command in (models, cost, check_data, train, evaluate, predict):
        app.command(command)
    try:
        return app.cli(args=arguments, prog="python -m glamlib")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
