"""python -m glamlib: see `glamlib.cli`."""

import sys

from glamlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
