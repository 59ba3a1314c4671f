"""What only the authors' released code does, and the names of its weights.

The core of this library follows the paper. The released code (github themyrl/glam at 44abe55; for volumes,
themyrl/medseg at 35de82e) differs in the ways that `DIFFERENCES` and `VOLUME_DIFFERENCES` list. Each can be switched on
alone, ``create_model(..., behaviour="raw_tokens+position_table")``, or all together, ``behaviour="released"``.
"""

from glamlib.released.parts import DIFFERENCES, VOLUME_DIFFERENCES, parts_of
from glamlib.released.weights import Loaded, load_released

__all__ = ["DIFFERENCES", "VOLUME_DIFFERENCES", "Loaded", "load_released", "parts_of"]
