"""Executed notebooks as HTML pages that need no network (the report, the reading copies), and the README's headline.

python -m glamlib.report.page report EXECUTED.ipynb report.html
python -m glamlib.report.page site results build/site
python -m glamlib.report.page readme README.md results
"""

import re
import sys
from base64 import b64decode, b64encode
from io import BytesIO
from itertools import pairwise, takewhile
from pathlib import Path
from string import Template

import nbformat
from bs4 import BeautifulSoup, Tag
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image
from pygments.formatters import HtmlFormatter

from glamlib.errors import InputError, lookup, one_line_errors
from glamlib.files import write_whole
from glamlib.report.claims import claims_markdown
from glamlib.report.tables import METRIC_NAMES, study_markdown
from glamlib.studies import find_study

BEGIN, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"
TEMPLATE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
SHOWN = 3  # columns of a table on a phone; the rest is there on tap
_PHOTOGRAPH = 120_000  # bytes of a PNG: drawings have fewer


class _Renderer(IPythonRenderer):
    """Formulas become MathML, which browsers draw by themselves."""

    inline_math = staticmethod(convert)
    block_math = staticmethod(lambda body: convert(body, display="block"))

    def block_html(self, html: str) -> str:
        return f"{html}\n"  # as it is: nbconvert closes a <details> before the cell's text


def page_html(
    notebook: nbformat.NotebookNode, title: str, folder: Path = Path(), code: bool = False, navigation: str = ""
) -> str:
    """Return outputs and prose, and ``code`` if wanted, as a self-contained page: no scripts, pictures inside.

    Pictures are also those below ``folder``. ``navigation`` is HTML for the top of the page.
    """
    hidden = {"exclude_input": not code, "exclude_input_prompt": True, "exclude_output_prompt": True}
    markdown = MarkdownWithMath(renderer=_Renderer(escape=False, embed_images=True, path=str(folder)))
    exporter = HTMLExporter(template_name="basic", filters={"markdown2html": markdown.render}, **hidden)
    body, _ = exporter.from_notebook_node(notebook)
    page = BeautifulSoup(body, "html.parser")
    for image in page.find_all("img"):
        _shrink(image)
    for table in page.find_all("table"):
        _fit_for_phones(page, table)
    style = HtmlFormatter(style="vs").get_style_defs(".highlight") if code else ""
    cells = page.select(".celltag_parameters, .celltag_injected-parameters, .code_cell:-soup-contains('(globals()')")
    if not code:
        for cell in cells:
            cell.decompose()
    elif cells:
        fold = cells[0].wrap(page.new_tag("details"))
        fold.insert(0, BeautifulSoup("<summary>Parameters</summary>", "html.parser"))
        fold.extend(cells[1:])
    sections = page.find_all("h2")
    if len(sections) > 1:
        links = [f'<li><a href="#{part["id"]}">{part.get_text().removesuffix("¶")}</a></li>' for part in sections]
        contents = f"<details><summary>Contents</summary><ol>{''.join(links)}</ol></details>"
        sections[0].insert_before(BeautifulSoup(contents, "html.parser"))
    return TEMPLATE.substitute(title=title, style=style, navigation=navigation, body=str(page))


def _what_to_see(image: Tag) -> str:
    """Return the sentence that says what to see in an image: before it, or after it if its section begins with it."""

    def is_near(tag: Tag) -> bool:
        return tag.name in ("h1", "h2", "h3", "img") or (tag.name == "p" and "What to see: " in tag.get_text())

    before, after = (
        list(takewhile(lambda tag: tag.name in ("p", "img"), found))
        for found in (image.find_all_previous(is_near), image.find_all_next(is_near))
    )
    order = before + after if before and before[-1].name == "p" else after + before
    if sentence := next((tag.get_text() for tag in order if tag.name == "p"), ""):
        return sentence[sentence.index("What to see: ") :]
    return f"Figure of the section: {image.find_previous(['h1', 'h2', 'h3']).get_text().removesuffix('¶')}"


def _shrink(image: Tag) -> None:
    """Make a PNG inside the page a WebP, photographs with loss, and describe what has no description."""
    if (image.get("alt") or "No description").startswith("No description"):
        image["alt"] = _what_to_see(image)
    if (source := image["src"]).startswith("data:image/png;base64,"):
        png = b64decode(source.partition(",")[2])
        picture, small = Image.open(BytesIO(png)), BytesIO()
        picture.save(small, "WEBP", lossless=len(png) < _PHOTOGRAPH, quality=90, method=4)
        image["width"], image["height"] = map(str, picture.size)
        image["src"] = f"data:image/webp;base64,{b64encode(small.getvalue()).decode()}"


def _fit_for_phones(page: BeautifulSoup, table: Tag) -> None:
    """Give a table a frame that scrolls and, unless cells span several, a box that shows all columns on a phone."""
    rows = table.find_all("tr")
    columns = max(len(row.find_all(["th", "td"])) for row in rows)
    if "claims" in table.get("class", []):
        for row in rows[1:]:
            verdict = row.find_all("td")[-1]
            verdict["class"] = verdict.get_text().replace(" ", "-")
        return
    frame = table.wrap(page.new_tag("div", tabindex="0", role="region", **{"class": "frame", "aria-label": "table"}))
    if columns > SHOWN and not table.find(rowspan=True) and not table.find(colspan=True):
        label = page.new_tag("label", **{"class": "more"})
        label.extend([page.new_tag("input", type="checkbox"), f" all {columns} columns"])
        frame.insert_before(label)


def write_site(results: Path, out: Path) -> None:
    """Write the executed notebooks below ``results`` and the report as linked pages, and an index.html, to ``out``."""
    files = [file for file in sorted((results / "notebooks").glob("*.ipynb")) if "." not in file.stem]  # not failed
    if not files or not (results / "report.html").exists():
        raise InputError(f"{results}: no executed notebooks or no report.html; make reproduce writes them")
    notebooks = {file.stem: nbformat.read(file, as_version=4) for file in files}
    titles = {name: re.search(r"^# (?:\d\d · )?(.*)", one.cells[0].source)[1] for name, one in notebooks.items()}
    titles = {name: f"{name[:2]} · {title}" for name, title in titles.items()} | {"report": "The report: all verdicts"}
    for name, after in pairwise(titles):
        links = {"index": "all notebooks", "report": "report", after: f"next: {titles[after]}"}
        navigation = " · ".join(f'<a href="{target}.html">{text}</a>' for target, text in links.items())
        html = page_html(notebooks[name], titles[name], results / "notebooks", code=True, navigation=navigation)
        html = re.sub(r'href="(?:\.\./notebooks/)?(\d\d_\w+)\.ipynb', r'href="\1.html', html)
        write_whole(out / f"{name}.html", html)
    write_whole(out / "report.html", (results / "report.html").read_bytes())
    rows = "".join(f'<li><a href="{name}.html">{title}</a></li>' for name, title in titles.items())
    body = f"<h1>GLAM, reproduced</h1><ul>{rows}</ul>"
    write_whole(out / "index.html", TEMPLATE.substitute(title="GLAM, reproduced", style="", navigation="", body=body))


def write_report(notebook: Path, out: Path) -> None:
    """Write the executed notebook of the report as a page."""
    write_whole(out, page_html(nbformat.read(notebook, as_version=4), "GLAM, reproduced: the report"))


def write_headline(readme: Path, results: Path) -> None:
    """Write a study's table and figure, and three claims, between the README's markers; InputError without these."""
    found = re.fullmatch(f"(.*{BEGIN}).*({END}.*)", readme.read_text(encoding="utf-8"), re.DOTALL)
    if not found:
        raise InputError(f"{readme}: the markers {BEGIN!r} and {END!r} are missing")
    study = find_study("context")
    alt = f"{METRIC_NAMES[study.metric]} of each variant of study {study.name}"
    figure = f"![{alt}]({results.name}/figures/{study.name}_score.png)"
    real = "On real data (the report explains the verdicts):\n\n"
    real += claims_markdown(results, ids=("camvid_10", "hippocampus_10", "brains_10"))
    write_whole(readme, f"{found[1]}\n\n{study_markdown(results, study, 'cpu')}\n\n{figure}\n\n{real}\n\n{found[2]}")


if __name__ == "__main__":
    commands = {"report": write_report, "site": write_site, "readme": write_headline}
    with one_line_errors():
        command, *paths = sys.argv[1:] or [""]
        lookup("command", command, commands)(*map(Path, paths))
