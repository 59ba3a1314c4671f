"""The study's tables as a reader meets them: HTML for the report and notebooks, Markdown for the README."""

from collections.abc import Callable
from html import escape

import pandas as pd

from .claims import METRIC_NAMES, Claim
from .studies import find_study

NUMBER = ' class="num"'  # the report aligns these cells to the right


def metric_of(summary: pd.DataFrame) -> str:
    """Return the metric that a summary table is about: "dice" or "miou"."""
    return "dice" if "dice" in summary else "miou"


def _against_baseline(row: pd.Series) -> str:
    if pd.isna(row.get("gain")):
        return "baseline"
    interval = f" ({row['gain_low']:+.3f} to {row['gain_high']:+.3f})" if pd.notna(row["gain_low"]) else ""
    return f"{row['gain']:+.3f}{interval}"


def summary_table(summary: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return a study's summary as a reader meets it: the header, and formatted rows, the baseline's first."""
    metric = metric_of(summary)

    def interval(row: pd.Series) -> str:
        return f"{row[f'{metric}_low']:.3f} to {row[f'{metric}_high']:.3f}" if row["n"] > 1 else "one seed"

    columns: list[tuple[str, str, Callable[[pd.Series], str]]] = [
        ("variant", "label", lambda row: row["label"]),
        (METRIC_NAMES[metric], metric, lambda row: f"{row[metric]:.3f}"),
        ("95 % interval", metric, interval),
        ("against baseline", metric, _against_baseline),
        ("right class", "cue_accuracy", lambda row: f"{row['cue_accuracy']:.3f}"),
        ("HD95 (mm)", "hd95_mm", lambda row: "undefined" if pd.isna(row["hd95_mm"]) else f"{row['hd95_mm']:.2f}"),
        ("Dice, other rule", "dice_synapse_rule", lambda row: f"{row['dice_synapse_rule']:.3f}"),
        ("undefined HD95", "undefined_hd95", lambda row: f"{row['undefined_hd95']:.0f}"),
        ("M multiply-adds", "gmacs", lambda row: f"{row['gmacs'] * 1e3:.1f}"),
        ("parameters", "parameters", lambda row: f"{row['parameters']:,}"),
    ]
    told = [(title, cell) for title, needs, cell in columns if needs in summary]
    return [title for title, _ in told], [[cell(row) for _, cell in told] for _, row in summary.iterrows()]


def summary_html(summary: pd.DataFrame) -> str:
    """Return a study's summary as an HTML table."""
    header, rows = summary_table(summary)

    def cells(tag: str, row: list[str]) -> str:
        return "".join(f"<{tag}{NUMBER if i else ''}>{escape(text)}</{tag}>" for i, text in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', header)}</tr></thead><tbody>{body}</tbody></table>"


def summary_markdown(summary: pd.DataFrame) -> str:
    """Return a study's summary as a Markdown table."""
    header, rows = summary_table(summary)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def claims_html(claims: list[Claim]) -> str:
    """Return the claims as an HTML table: claim, what was measured, verdict."""
    rows = "".join(
        f"<tr><td>{escape(item.claim)}</td><td>{escape(item.measured)}</td>"
        f'<td class="verdict">{escape(item.verdict)}</td></tr>'
        for item in claims
    )
    return (
        '<table class="claims"><thead><tr><th>claim</th><th>measured</th><th>verdict</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def why_not_run(name: str, profile: str) -> str:
    """Return, in Markdown, why a study has no result here: no such size, data that are not there, or not run yet."""
    study = find_study(name)
    if profile not in study.profiles:
        return f"**Not run at profile `{profile}`**: study `{name}` has the profiles {', '.join(study.profiles)}."
    if not study.needs_files:
        return f"**Not run yet**: study `{name}` waits for `make reproduce`."
    fetch = ", or fetch them with `make camvid`" if study.dataset == "camvid" else ""
    return f"**Not run: the {study.dataset} data were not there.** Set `GLAM_DATA`{fetch}."


def provenance_sentence(runs: pd.DataFrame) -> str:
    """Return how and where a study's runs were made: profile, seeds, commit, device, torch, memory.

    Not how long they took: runs share a machine, and speed is a benchmark's to tell.
    """
    commits = ", ".join(sorted({str(commit)[:10] for commit in runs["commit"]}))
    changed = " with uncommitted changes" if runs["dirty"].any() else ""
    return (
        f"{len(runs)} runs ({runs['variant'].nunique()} variants, {runs['seed'].nunique()} seeds), profile "
        f"{runs['profile'].iloc[0]}, commit {commits}{changed}, on {', '.join(sorted(set(runs['device'])))}, "
        f"torch {', '.join(sorted(set(runs['torch'])))}; at most {runs['peak_memory_mib'].max():.0f} MiB a run."
    )
