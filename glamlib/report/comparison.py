"""What a comparison on one's own data ends with: the study's tables, and a page of them with curves and predictions."""

import re
from base64 import b64encode
from html import escape
from pathlib import Path

from nbformat.v4 import new_markdown_cell, new_notebook

from glamlib.data.datasets import SegmentationDataset
from glamlib.files import write_whole
from glamlib.report import figures, pictures, tables
from glamlib.report.page import page_html
from glamlib.report.statistics import INCONCLUSIVE, LEVEL, compare, holm
from glamlib.runs.records import read_pictures
from glamlib.studies.study import Study


def write_comparison(results: Path, study: Study, data: SegmentationDataset) -> str:
    """Write ``tables/NAME.csv``, ``NAME_summary.csv``, ``NAME.md`` and ``NAME.html``; return the tables in Markdown.

    InputError where the study has no run. ``data`` tells classes and colours.
    """
    tables.write_tables(results, study)
    validates = next(iter(study.profiles.values())).parameters["validate_every"]
    runs, metric, volumes = tables.run_table(results, study), study.metric, study.dataset == "volumes"
    scores = runs.pivot(index="seed", columns="variant", values=metric).reindex(columns=list(study.variants))
    baseline, verdicts = scores.pop(study.baseline), {}
    found = {name: compare(scores[name], baseline, level=LEVEL / scores.shape[1]) for name in scores}
    for (name, one), p in zip(found.items(), holm(one.p for one in found.values()), strict=True):
        verdicts[name] = one._replace(p=p).verdict
        if verdicts[name] == INCONCLUSIVE and one.n > 1:
            most = f"a difference of {one.detectable:.3f}" if one.detectable <= 1 else "no difference"
            verdicts[name] += f" ({most} would show)"
    summary = tables.summary_table(runs, study)
    summary["verdict"] = [verdicts.get(variant, "") for variant in summary["variant"]]
    classes, score = (data.classes[1:], "Dice") if volumes else (data.classes, "IoU")
    by_class = runs.groupby("label", sort=False)[[f"{score.lower()}_{name}" for name in classes]].mean().T
    names = [re.sub(r"(\*|^_|_$)", r"\\\1", escape(name)).replace("|", "&#124;") for name in classes]
    by_class = by_class.set_axis(names).map("{:.3f}".format).replace("nan", "-")
    text = f"""# {study.question}

{tables.provenance_sentence(results, study)} Scores are of test data,
by the {"weights that validation scored highest" if validates else "last weights"}.
The verdict is on "better than {study.variants[study.baseline].label}", paired by seed, at 5 % for all models together
(Holm). Beside an inconclusive one is the smallest difference that so many seeds would show with probability 0.8.
{" ".join(tables.COLUMNS.loc[tables.COLUMNS["needs"].isin(summary), "meaning"].dropna())}

{tables.summary_markdown(summary, study)}

{score} of each class, mean over seeds:

{by_class.to_markdown(disable_numparse=True, colalign=("left", *["right"] * by_class.shape[1]))}
"""
    write_whole(results / "tables" / f"{study.name}.md", text)

    figures.use_style()
    drawn, page = {"Training loss": figures.training_curves(study, results)}, text
    if validates:
        drawn["Validation scores"] = figures.training_curves(study, results, f"val_{metric}")
    if any(read_pictures(results, study.name, name) for name in study.variants):  # of the first seed
        shown = pictures.slices(study, results) if volumes else pictures.predictions(study, results, data.palette)
        drawn["Predictions"] = shown
    for title, figure in drawn.items():
        file = figures.save(figure, results, f"{study.name}_{title.split()[0].lower()}").read_bytes()
        page += f'\n## {title}\n\n<img alt="{title}" src="data:image/png;base64,{b64encode(file).decode()}">\n'
    document = new_notebook(cells=[new_markdown_cell(page)])
    write_whole(results / "tables" / f"{study.name}.html", page_html(document, study.question, results))
    return text
