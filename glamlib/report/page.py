"""The report as one HTML file, made from its executed notebook, and the headline result in the README.

python -m glamlib.report.page report EXECUTED.ipynb report.html
python -m glamlib.report.page readme README.md results
"""

import sys
from pathlib import Path
from string import Template

import nbformat
from nbconvert import HTMLExporter

from glamlib.errors import InputError, one_line_errors, one_of
from glamlib.files import write_whole
from glamlib.report.tables import METRIC_NAMES, study_markdown
from glamlib.studies import CONTEXT

BEGIN, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"
TEMPLATE = Template(Path(__file__).with_name("page.html").read_text())


def page_html(notebook: nbformat.NotebookNode, title: str, folder: Path = Path()) -> str:
    """Return outputs and prose as a self-contained page: no scripts, pictures inside, also those below ``folder``."""
    options = dict.fromkeys(("exclude_input", "exclude_input_prompt", "exclude_output_prompt", "embed_images"), True)
    exporter = HTMLExporter(template_name="basic", **options)
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": str(folder)}})
    return TEMPLATE.substitute(title=title, body=body)


def headline(results: Path) -> str:
    """Return the result that the README shows: one study's question, provenance, table and figure."""
    study = CONTEXT
    figure = results / "figures" / f"{study.name}_{study.metric}.png"
    alt = f"{METRIC_NAMES[study.metric]} of each variant of study {study.name}"
    return f"{study_markdown(results, study, 'cpu')}\n\n![{alt}]({figure.relative_to(results.parent)})"


def with_headline(readme: str, text: str) -> str:
    """Return ``readme`` with ``text`` between its markers; InputError where they are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"README: the markers {BEGIN!r} and {END!r} are missing")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main(command: str, source: str, target: str) -> None:
    """Write the report TARGET from the notebook SOURCE, or the results of TARGET into the README SOURCE."""
    if command == "report":
        notebook = nbformat.read(source, as_version=4)
        write_whole(Path(target), page_html(notebook, "GLAM, reproduced: the report"))
    elif command == "readme":
        write_whole(Path(source), with_headline(Path(source).read_text(), headline(Path(target))))
    else:
        raise one_of("command", command, ("report", "readme"))


if __name__ == "__main__":
    with one_line_errors():
        main(*sys.argv[1:])
