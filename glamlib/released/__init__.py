"""What only the authors' released code does, and the names of its weights.

The core of this library follows the paper. The released code (github themyrl/glam at 44abe55; for volumes,
themyrl/medseg at 35de82e) differs in the ways that `DIFFERENCES` and `VOLUME_DIFFERENCES` list. Each can be switched on
alone, ``create_model(..., behaviour="raw_tokens+position_table")``, or all together, ``behaviour="released"``. Not
copied are, for volumes, the input size fixed at construction, and what is computed and never read but a block's G-MSA
(a downsampling after the last stage, a third head).
"""

from collections.abc import Iterable
from functools import partial

from glamlib.errors import one_of
from glamlib.models.config import StagedConfig
from glamlib.models.segmenter import PAPER, Parts
from glamlib.released.stages import ReleasedStage, ReleasedUpsampling
from glamlib.released.weights import Loaded, load_released

__all__ = ["DIFFERENCES", "VOLUME_DIFFERENCES", "Loaded", "differences_of", "load_released", "parts_of"]

_SHARED = {
    "raw_tokens": "tokens enter window attention without the norm that patches get",
    "bare_gmsa": "no norm before G-MSA and no residual around it",
    "position_table": "a learned table of positions, of which G-MSA reads a flat middle slice",
    "last_gmsa": "the last block of a stage has a G-MSA whose result nothing reads",
    "random_tokens": "tokens start from a normal distribution of deviation 1 instead of 0.02",
}
DIFFERENCES = _SHARED | {
    "no_token_residual": "window attention replaces the tokens instead of adding to them",
    "no_token_mlp": "no MLP on tokens",
    "fixed_windows": "windows stay as large, and shifted, where the map is smaller than they are",
    "raw_skip": "in non-local upsampling the queries come from the skip connection without a norm",
    "scrambled_bias": "in non-local upsampling the keys' columns are in the wrong order in the position bias",
    "resize_output": "maps and logits are resized to the size wanted instead of cut where the image or map was padded",
}
VOLUME_DIFFERENCES = _SHARED | {
    "early_token_mlp": "the MLP on tokens comes before G-MSA instead of after it",
    "clamped_tokens": "a block cuts its tokens to values from -1 to 1",
    "colliding_bias": "different offsets of patches share a row of the position bias table",
    "cubic_windows": "where any side of the map is no larger than a window, all sides of the window shrink to it",
    "fixed_heads": "auxiliary heads make 4 x 4 x 4 voxels of a patch, whatever the patch embedding's",
    "one_auxiliary": "deep supervision at half the size only, not at a quarter",
    "default_init": "linear layers start as PyTorch makes them",
}


def differences_of(behaviour: str, known: Iterable[str] = DIFFERENCES) -> frozenset[str]:
    """Return which of the ``known`` differences a behaviour has: none for "paper", all for "released", else those that
    it names, joined by "+". InputError for any other name, with the list of all.
    """
    if behaviour in ("paper", "released"):
        return frozenset(known if behaviour == "released" else ())
    names = behaviour.split("+")
    for name in names:
        if name not in known:
            raise one_of("behaviour", name, ["paper", "released", *known])
    return frozenset(names)


def parts_of(config: StagedConfig) -> Parts:
    """Return the parts of a network of the configured behaviour: the paper's own where nothing differs."""
    differences = differences_of(config.behaviour, DIFFERENCES if config.ndim == 2 else VOLUME_DIFFERENCES)
    if not differences:
        return PAPER
    return Parts(
        make_stage=partial(ReleasedStage, differences=differences),
        upsampling=partial(ReleasedUpsampling, differences=differences),
        resize_to_image="resize_output" in differences,
        auxiliary_side=4 if "fixed_heads" in differences else None,
        max_auxiliary=1 if "one_auxiliary" in differences else None,
        initialise="default_init" not in differences,
    )
