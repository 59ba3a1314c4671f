"""The study's tables as a reader meets them: HTML for the report and notebooks, Markdown for the README."""

from html import escape

import pandas as pd

from .claims import Claim
from .studies import find_study

NUMBER = ' class="num"'  # the report aligns these cells to the right
_HEADER = (
    "variant",
    "mIoU",
    "95 % interval",
    "against baseline",
    "right class",
    "M multiply-adds",
    "parameters",
    "s to train",
)


def summary_rows(summary: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return a study's summary as formatted rows under `_HEADER`; the first is the baseline."""
    rows = []
    for row in summary.itertuples():
        gain = "baseline"
        if pd.notna(getattr(row, "gain", float("nan"))):
            gain = f"{row.gain:+.3f}"
            if pd.notna(row.gain_low):
                gain += f" ({row.gain_low:+.3f} to {row.gain_high:+.3f})"
        rows.append(
            (
                row.label,
                f"{row.miou:.3f}",
                f"{row.miou_low:.3f} to {row.miou_high:.3f}" if row.n > 1 else "one seed",
                gain,
                f"{row.cue_accuracy:.3f}" if hasattr(row, "cue_accuracy") else "",
                f"{row.gmacs * 1e3:.1f}",
                f"{row.parameters:,}",
                f"{row.train_seconds:.0f}",
            )
        )
    return rows


def _columns(summary: pd.DataFrame) -> list[int]:
    """Return the columns of `_HEADER` that say something for this study."""
    return [i for i, name in enumerate(_HEADER) if name != "right class" or "cue_accuracy" in summary]


def summary_html(summary: pd.DataFrame) -> str:
    """Return a study's summary as an HTML table."""
    columns = _columns(summary)

    def cells(tag: str, row: tuple[str, ...]) -> str:
        return "".join(f"<{tag}{NUMBER if i else ''}>{escape(row[i])}</{tag}>" for i in columns)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in summary_rows(summary))
    return f"<table><thead><tr>{cells('th', _HEADER)}</tr></thead><tbody>{body}</tbody></table>"


def summary_markdown(summary: pd.DataFrame) -> str:
    """Return a study's summary as a Markdown table."""
    columns = _columns(summary)
    lines = [[_HEADER[i] for i in columns], ["---" if i == 0 else "---:" for i in columns]]
    lines += [[row[i] for i in columns] for row in summary_rows(summary)]
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
    if study.dataset == "scenes":
        return f"**Not run yet**: study `{name}` waits for `make reproduce`."
    return f"**Not run: the {study.dataset} data were not there.** Set `GLAM_DATA`, or fetch them with `make camvid`."


def provenance_sentence(runs: pd.DataFrame) -> str:
    """Return how and where a study's runs were made: profile, seeds, commit, device, torch, time."""
    commits = ", ".join(sorted({str(commit)[:10] for commit in runs["commit"]}))
    changed = " with uncommitted changes" if runs["dirty"].any() else ""
    return (
        f"{len(runs)} runs ({runs['variant'].nunique()} variants, {runs['seed'].nunique()} seeds), profile "
        f"{runs['profile'].iloc[0]}, commit {commits}{changed}, on {', '.join(sorted(set(runs['device'])))}, "
        f"torch {', '.join(sorted(set(runs['torch'])))}; {runs['train_seconds'].sum() / 60:.0f} minutes of training in "
        f"all, at most {runs['peak_memory_mib'].max():.0f} MiB a run."
    )
