"""The report: an executed notebook as one HTML file that needs nothing else, without its code.

python -m glamlib.report.page EXECUTED.ipynb report.html


MERGED: Putting the headline tables into the README, between its markers: figures there are never typed.

python -m glamlib.report.page README.md results
"""

import sys
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from glamlib.errors import InputError
from glamlib.files import write_whole
from glamlib.report.claims import METRIC_NAMES
from glamlib.report.tables import provenance_sentence, read_table, summary_markdown, why_not_run
from glamlib.studies import STUDIES

_STYLE = """
:root { color-scheme: light; }
body { font: 17px/1.55 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 60rem; margin: 0 auto;
       padding: 1rem; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; } h2 { margin-top: 2.4rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
a { color: #0b5394; } a.anchor-link { display: none; } img { max-width: 100%; height: auto; }
code { background: #f2f2f2; padding: 0 .2em; }
table { border-collapse: collapse; font-size: .88rem; margin: 1rem 0; }
.jp-RenderedHTMLCommon, .output_html, .jp-OutputArea-output { overflow-x: auto; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
th { background: #f5f5f5; } td.num, th.num { text-align: right; font-variant-numeric: tabular-nums; }
.verdict { font-weight: 600; }
@media (max-width: 40rem) {
  table.claims thead { display: none; } table.claims td { display: block; border: 0; padding: .15rem 0; }
  table.claims td:first-child { font-weight: 600; padding-top: .8rem; } table.claims .verdict::before { content: "→ "; }
}
div.output_prompt, div.prompt, .jp-InputPrompt, .jp-OutputPrompt { display: none; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def report_html(notebook: Path, title: str) -> str:
    """Return the outputs and prose of an executed notebook as a self-contained page: pictures inside, no scripts."""
    exporter = HTMLExporter(
        template_name="basic", exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True
    )
    body, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
    return _PAGE.format(title=title, style=_STYLE, body=body)


if __name__ == "__main__":
    write_whole(Path(sys.argv[2]), report_html(Path(sys.argv[1]), "GLAM, reproduced: the report"))


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
