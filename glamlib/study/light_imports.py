"""Lets nbformat import without a grammar that takes seconds to compile: import this module before it.

jsonschema, which nbformat imports, loads rfc3987_syntax where that is installed, a checker of internationalised
addresses that compiles its grammar at import; it does without where there is none, and notebooks have no such ones.
Every run is executed by a process of its own, so every run would pay.
"""

import sys

sys.modules.setdefault("rfc3987_syntax", None)
