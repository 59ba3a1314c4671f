"""Putting the headline tables into the README, between its markers: figures there are never typed.

python -m glamlib.study.readme README.md results
"""

import sys
from pathlib import Path

from glamlib.errors import InputError

from .claims import METRIC_NAMES
from .files import write_whole
from .show import provenance_sentence, summary_markdown, why_not_run
from .studies import STUDIES
from .tables import read_table

HEADLINES = ("context", "mixers", "camvid", "volumes_hippocampus")  # the report has them all
BEGIN, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"


def headline(results: Path) -> str:
    """Return the results for the README: question, table, figure and provenance of each headline study."""
    parts = []
    for name in HEADLINES:
        study = STUDIES[name]
        parts.append(f"**{study.question}** (study `{name}`)")
        runs, summary = read_table(results, name), read_table(results, f"{name}_summary")
        if runs is None or summary is None:
            parts.append(why_not_run(name, "cpu"))
            continue
        parts += [summary_markdown(summary), provenance_sentence(runs)]
        figure = results / "figures" / f"{name}_{study.metric}.png"
        if figure.exists():
            parts.append(
                f"![{METRIC_NAMES[study.metric]} of each variant of study {name}]({figure.relative_to(results.parent)})"
            )
    return "\n\n".join(parts)


def with_headline(readme: str, text: str) -> str:
    """Return ``readme`` with ``text`` between its markers; InputError where they are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"README: the markers {BEGIN!r} and {END!r} are missing")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    try:
        write_whole(path, with_headline(path.read_text(), headline(Path(sys.argv[2]))))
    except InputError as error:
        sys.exit(f"error: {error}")
