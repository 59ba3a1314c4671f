"""Everything that only the authors' released code does, and the names of its weights.

The core of this library follows the paper (METHOD of the study: one reading of it). The released code (github
themyrl/glam at 44abe55; for volumes, themyrl/medseg at 35de82e) differs in the ways that `DIFFERENCES` and
`VOLUME_DIFFERENCES` list; each can be switched on alone, ``create_model(..., behaviour="raw_tokens+position_table")``,
or all together, ``behaviour="released"``.
"""

from glamlib.released.parts import DIFFERENCES
from glamlib.released.volumes import VOLUME_DIFFERENCES
from glamlib.released.weights import load_released

__all__ = ["DIFFERENCES", "VOLUME_DIFFERENCES", "load_released"]
