"""What a comparison on one's own data ends with: the study's tables, and a page of them with curves and predictions."""

from pathlib import Path

import matplotlib.pyplot as plt
from nbformat.v4 import new_markdown_cell, new_notebook

from glamlib.data.images import Palette
from glamlib.files import write_whole
from glamlib.report import figures
from glamlib.report.claims import verdict
from glamlib.report.page import page
from glamlib.report.statistics import paired_difference
from glamlib.report.tables import (
    METRIC_NAMES,
    provenance_sentence,
    run_table,
    summary_markdown,
    summary_table,
    write_tables,
)
from glamlib.studies.study import Study


def write_comparison(results: Path, study: Study, palette: Palette) -> str:
    """Write ``tables/NAME.csv``, ``NAME_summary.csv``, ``NAME.md`` and ``NAME.html``; return the tables in Markdown.

    InputError where the study has no run.
    """
    write_tables(results, study)
    runs, metric = run_table(results, study), study.metric
    others = [name for name in study.variants if name != study.baseline and name in set(runs["variant"])]
    verdicts = {name: verdict(paired_difference(runs, name, study.baseline, metric)) for name in others}
    summary = summary_table(runs, study)
    summary = summary.assign(
        verdict=summary["variant"].map(verdicts).fillna(""), shown_seconds=summary["train_seconds"]
    )
    score = "Dice" if metric == "dice" else "IoU"
    columns = [name for name in runs if name.startswith(f"{score.lower()}_") and name != "dice_synapse_rule"]
    by_class = runs.groupby("label", sort=False)[columns].mean().T.rename(lambda name: name.split("_", 1)[1])
    by_class = by_class.map("{:.3f}".format).replace("nan", "-")
    text = f"""# {study.question}

{provenance_sentence(runs)} Scores are of the test data, by the weights that scored highest on validation data.
The verdict is on "better than {study.variants[study.baseline].label}", the difference is paired by seed, and intervals
are of 95 %, over seeds.

{summary_markdown(summary, study)}

{score} of each class, mean over seeds:

{by_class.to_markdown(disable_numparse=True, stralign="right")}
"""
    write_whole(results / "tables" / f"{study.name}.md", text)

    figures.use_style()
    drawn = {"Training loss": figures.training_curves(study, results)}
    if study.run(study.baseline, 0, next(iter(study.profiles))).validate_every:
        drawn[f"{METRIC_NAMES[metric]} on validation data"] = figures.training_curves(study, results, f"val_{metric}")
    volumes = study.dataset == "volumes"
    drawn["Predictions"] = figures.slices(study, results) if volumes else figures.predictions(study, results, palette)
    for title, figure in drawn.items():
        path = figures.save(figure, results, f"{study.name}_{title.split()[0].lower()}")
        plt.close(figure)
        text += f"\n## {title}\n\n![{title}](figures/{path.name})\n"
    notebook = new_notebook(cells=[new_markdown_cell(text)])
    write_whole(results / "tables" / f"{study.name}.html", page(notebook, study.question, results))
    return text[: text.index("\n## ")]
