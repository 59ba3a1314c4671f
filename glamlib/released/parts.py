"""The differences by name, and the parts that a network of such behaviour is made of."""

from collections.abc import Iterable
from functools import partial

from glamlib.errors import one_of
from glamlib.models.segmenter import Parts
from glamlib.released.stages import ReleasedStage
from glamlib.released.upsampling import ReleasedUpsampling

DIFFERENCES = {
    "raw_tokens": "tokens enter window attention without the norm that patches get",
    "no_token_residual": "window attention replaces the tokens instead of adding to them",
    "no_token_mlp": "no MLP on tokens",
    "bare_gmsa": "no norm before G-MSA and no residual around it",
    "position_table": "a learned table of positions, of which G-MSA reads a flat middle slice",
    "last_gmsa": "the last block of a stage has a G-MSA whose result nothing reads",
    "fixed_windows": "windows stay as large, and shifted, where the map is smaller than they are",
    "random_tokens": "tokens start from a normal distribution of deviation 1 instead of 0.02",
    "raw_skip": "in non-local upsampling the skip connection asks without a norm",
    "scrambled_bias": "in non-local upsampling the keys' columns are in the wrong order in the position bias",
    "resize_output": "logits are resized to the image's size instead of cut where the image was padded",
}


def differences_of(behaviour: str, known: Iterable[str] = DIFFERENCES) -> frozenset[str]:
    """Return which of the ``known`` differences a behaviour switches on: none for "paper", all for "released", else
    those it names.

    Raises:
        InputError: a name that is none of these (lists them).
    """
    if behaviour in ("paper", "released"):
        return frozenset(known if behaviour == "released" else ())
    names = behaviour.split("+")
    for name in names:
        if name not in known:
            raise one_of("behaviour", name, ["paper", "released", *known])
    return frozenset(names)


def parts_of(behaviour: str) -> Parts:
    """Return the parts of a network of this behaviour: the paper's own where nothing differs."""
    differences = differences_of(behaviour)
    if not differences:
        return Parts()
    return Parts(
        make_stage=partial(ReleasedStage, differences=differences),
        upsampling=partial(ReleasedUpsampling, differences=differences),
        resize_to_image="resize_output" in differences,
    )
