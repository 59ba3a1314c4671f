"""python -m glamlib: see `glamlib.cli`."""

import sys

from glamlib.cli import main

sys.exit(main())
