"""Declared claims and their verdicts, from runs whose scores are planted."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glamlib import studies
from glamlib.report import claims
from glamlib.report.statistics import CONTRADICTED, EQUIVALENT, INCONCLUSIVE, SUPPORTED
from glamlib.report.tables import METRIC_NAMES
from glamlib.training.datasets import GENERATED

SCORES = {"swin": [0.62, 0.63, 0.61], "tokens_2": [0.64, 0.66, 0.65], "glam_2": [0.90, 0.91, 0.89]}


def table(study: str, profile: str = "", metric: str = "right_given_found", **scores: list[float]) -> pd.DataFrame:
    """Return planted runs; of the study's last profile unless said otherwise, and repeated to its number of seeds."""
    profile = profile or list(studies.STUDIES[study].profiles)[-1]
    size = studies.STUDIES[study].profiles[profile]
    rows = [
        {"study": study, "variant": variant, "seed": seed, "profile": profile, metric: value, "steps": 600}
        for variant, values in scores.items()
        for seed, value in enumerate(np.resize(values, max(size.seeds, len(values))), size.first_seed)
    ]
    return pd.DataFrame(rows)


def judged(results: Path, *tables: pd.DataFrame) -> pd.DataFrame:
    for runs in tables:
        path = results / "tables" / f"{runs['study'].iloc[0]}.csv"
        path.parent.mkdir(exist_ok=True)
        runs.to_csv(path, index=False)
    claims.write_claims(results)
    return claims.read_claims(results).set_index("id")


def test_the_declaration_is_whole():
    """Ids are unique, studies know the variants, profiles and metrics are those of the study."""
    table = claims.CLAIMS
    assert table["id"].is_unique
    assert not (table == "").drop(columns=["study", "variant", "comparison"]).any(axis=None)
    for claim in table[table["study"] != ""].itertuples():
        study = studies.STUDIES[claim.study]
        assert {claim.variant, claim.comparison} <= set(study.variants), claim.id
        assert set(claim.profiles.split()) <= set(study.profiles), claim.id
        assert claim.metric in (study.metric, "gmacs", "side_accuracy") or study.dataset in GENERATED, claim.id
    allowed = {"metric": {*METRIC_NAMES, "escaped", "steps_to_criterion", "gmacs"}, "test": {"paired", "welch"}}
    allowed |= {"direction": {"higher", "lower", "equal"}, "outcome": {"continuous", "success", "time"}}
    for column, values in allowed.items():
        assert set(table[column]) <= values


def test_without_runs_nothing_is_tested_and_it_is_said_why(tmp_path):
    found = judged(tmp_path)
    assert set(found["verdict"]) == {claims.NOT_TESTED}
    assert found["measured"].str.len().min() > 0
    assert found.loc["ade20k", "measured"] == "study ade20k has not run"


def test_verdicts_of_planted_scores(tmp_path):
    street = table("camvid", metric="miou", swin=[0.4, 0.41, 0.4], glam_10=[0.3, 0.31, 0.3]).assign(gmacs=0.2)
    street.loc[street["variant"] == "glam_10", "gmacs"] = 0.3
    legend = table("legend", k8_none=SCORES["glam_2"], k8_swin=[0.8, 0.81, 0.79])
    found = judged(tmp_path, table("context", **SCORES), legend, street)
    assert found.loc["tokens", "verdict"] == SUPPORTED
    assert "+0.280 right class" in found.loc["tokens", "measured"]
    assert found.loc["exchange", "verdict"] == SUPPORTED
    assert found.loc["legend_none", "verdict"] == CONTRADICTED  # 0.1 above, beyond the margin of 0.05
    assert found.loc["cheap_10", "verdict"] == CONTRADICTED
    assert found.loc["masked", "verdict"] == claims.UNFINISHED
    assert found.loc["masked", "measured"] == "0 of 10 seeds have run"
    html = claims.claims_html(found.reset_index())
    assert html.count("<tr") == 1 + (found["verdict"] != claims.NOT_TESTED).sum()
    assert "study ade20k has not run" in html.rpartition("</table>")[2]
    assert found.loc["camvid_10", "verdict"] == CONTRADICTED
    assert claims.claims_markdown(tmp_path, studies.find_study("camvid"), ids=("camvid_10",)).startswith(
        "- Claim: *GLAM with 10 tokens improves"
    )


def test_holm_takes_the_claims_that_a_family_declares(tmp_path):
    """By hand: p of the pairs alone, the smallest times all eight, the next times seven: what has not run counts."""
    found = judged(tmp_path, table("camvid", metric="miou", swin=[0.4, 0.42, 0.41], glam_1=[0.41, 0.44, 0.45],
                                   glam_10=[0.5, 0.51, 0.53]))  # fmt: skip
    from scipy import stats

    swin, one, ten = (np.resize(scores, 5) for scores in ([0.4, 0.42, 0.41], [0.41, 0.44, 0.45], [0.5, 0.51, 0.53]))
    alone = {"camvid_10": (ten, swin), "camvid_1": (one, swin), "camvid_number": (ten, one)}
    p = sorted((stats.ttest_rel(*pair).pvalue, name) for name, pair in alone.items())
    highest = 0
    for factor, (value, name) in zip((8, 7, 6), p, strict=True):
        highest = max(highest, factor * value)
        assert found.loc[name, "p"] == pytest.approx(min(highest, 1))


def test_what_enters_no_verdict(tmp_path):
    """Runs at the ceiling, rows near the image-blind prior, another profile, seeds that were not declared or lack."""
    ceiling = table("legend", k2_n2=[1.0, 0.999, 1.0], k2_n1=[1.0, 1.0, 0.998])
    sides = table("volumes_brains", metric="side_accuracy", glam_1=[0.997], nnformer=[0.998]).assign(dice=0.7)
    prior = table("camvid", metric="miou", swin=[0.18, 0.2, 0.16], glam_10=[0.4, 0.41, 0.4]).assign(prior=0.17)
    quick = table("release", profile="quick", metric="steps_to_criterion", paper=[100.0], raw_tokens=[100.0])
    some = table("legend_mixers", metric="steps_to_criterion", gmsa=[100.0], pooled=[200.0])
    some = some.drop(some[(some["variant"] == "pooled") & (some["seed"] == 4)].index)
    found = judged(tmp_path, ceiling, sides, prior, quick, some)
    assert found.loc[["number_2", "brains_1"], "verdict"].tolist() == [claims.SATURATED] * 2
    assert found.loc["legend_pooled_steps", "verdict"] == claims.UNFINISHED
    assert found.loc["legend_pooled_steps", "measured"].endswith("; 5 of 6 seeds have run")
    assert found.loc["camvid_10", "verdict"] == claims.NOT_TRAINED
    assert np.isnan(found.loc["camvid_10", "p"])
    assert "prior has 0.170" in found.loc["camvid_10", "measured"]
    assert found.loc["raw_tokens", "measured"].startswith("not at profile quick")
    more = table("context", swin=[0.6, 0.7, 0.65] * 4, glam_2=[0.8, 0.9, 0.85] * 4)
    assert judged(tmp_path, more).loc["tokens", ["n", "seeds"]].tolist() == [10, 10]


def test_a_claim_has_as_many_seeds_as_both_of_its_variants(tmp_path):
    """Of legends, 24 of one and eight tokens with eight facts, and six of the others."""
    few = {"k8_n1": [0.6, 0.7, 0.65], "k8_n8": [0.8, 0.9, 0.8], "k8_wide": [0.6, 0.7, 0.65]}
    found = judged(tmp_path, table("legend", **few))
    assert found.loc["number_8", "measured"].endswith("; 6 of 24 seeds have run")
    assert found.loc["wide", ["n", "seeds", "verdict"]].tolist() == [6, 6, SUPPORTED]
    found = judged(tmp_path, table("legend", **{name: scores * 8 for name, scores in few.items()}))
    assert found.loc["number_8", ["n", "seeds", "verdict"]].tolist() == [24, 24, SUPPORTED]
    assert found.loc["wide", ["n", "seeds"]].tolist() == [6, 6]


def test_bimodal_runs_and_times(tmp_path):
    soon = table("context_times", metric="steps_to_criterion", glam_2=[100, 110, 105], full=[102, 109, 107])
    soon = pd.concat([soon, soon[:60].assign(seed=range(60), steps_to_criterion=600)])  # which were not declared
    never = table("mixers_128", metric="steps_to_criterion", gmsa=[300, 310], pooled=[500, np.nan])
    guess = table("decoders", metric="escaped", swin_unet=[0], glam_unet=[0, 1, 1, 1, 1])
    found = judged(tmp_path, soon, never, guess)
    assert found.loc["full_steps", ["seeds", "verdict"]].tolist() == [100, EQUIVALENT]
    assert "+245 steps to criterion, against 305 (95 % interval +207 to" in found.loc["pooled_128", "measured"]
    assert found.loc["pooled_128", "verdict"] == CONTRADICTED
    assert found.loc["unet", "measured"].startswith("8 of 10 against 0 of 10 runs (95 % interval +0.3")
    assert "10 seeds, Fisher)" in found.loc["unet", "measured"]
    assert found.loc["unet", "verdict"] == SUPPORTED
    # 5 of 10 against 0 of 10 have p = 0.033, for one claim of six at the third look not enough
    one = judged(tmp_path, table("decoders", metric="escaped", swin_unet=[0], glam_unet=[0, 1]))
    assert one.loc["unet", "p"] == pytest.approx(6 * 2 * 252 / 15504 * 0.05 / 0.0221)
    assert one.loc["unet", "verdict"] == INCONCLUSIVE


def test_runs_that_never_find_the_rule_are_not_as_soon_as_others(tmp_path):
    never, some = [np.nan] * 10, [600.0] * 6 + [300.0] * 4
    times = table("release", metric="steps_to_criterion", paper=never, raw_tokens=never, released=some)
    found = judged(tmp_path, times.assign(right_given_found=0.5))
    assert set(found.loc[["raw_tokens", "released_steps"], "verdict"]) == {claims.NOT_TRAINED}
    early = table("release", metric="steps_to_criterion", paper=[100.0] * 10, raw_tokens=[100.0] * 10, released=never)
    found = judged(tmp_path, early.assign(right_given_found=0.5))
    assert found.loc["raw_tokens", "verdict"] == EQUIVALENT
    assert found.loc["released_steps", "verdict"] == CONTRADICTED


def test_test_subjects_are_resampled_beside_seeds(tmp_path, monkeypatch):
    """Forty subjects, a difference of 0.1 with deviation 0.02 between subjects."""
    rng = np.random.default_rng(0)
    gains = rng.normal(0.1, 0.02, 40)
    records = [
        {"parameters": {"variant": variant, "seed": 0}, "metrics": {"cases": [
            {"name": str(1000 + i), "dice": [0.5 + gain * (variant == "glam_10"), None]} for i, gain in enumerate(gains)
        ]}}
        for variant in ("nnformer", "glam_10")
    ]  # fmt: skip
    monkeypatch.setattr(claims, "comparable", lambda *_: (records, []))
    runs = table("volumes_hippocampus", metric="dice", nnformer=[0.5, 0.52, 0.51], glam_10=[0.6, 0.62, 0.62])
    found = judged(tmp_path, runs).loc["hippocampus_10"]
    half = 2.02 * gains.std(ddof=1) / np.sqrt(40)
    assert found["images_low"] == pytest.approx(gains.mean() - half, abs=0.002)
    assert found["images_high"] == pytest.approx(gains.mean() + half, abs=0.002)
    assert "over test subjects" in found["measured"]


def test_test_clips_are_resampled_beside_seeds(tmp_path, monkeypatch):
    """Two sequences of 35 and 20 frames are three clips: every resample of their pixels is counted by hand."""
    rng, records = np.random.default_rng(0), []
    frames = [f"{name}_{i:03}" for name, count in (("A", 35), ("B", 20)) for i in range(count)]
    clips = [0] * 20 + [1] * 15 + [2] * 20
    sums = np.zeros((2, 3, 3, 3))  # variant, clip, hits and truth and guess, class
    for variant, seed in product(range(2), range(2)):
        cases = []
        for frame, clip in zip(frames, clips, strict=True):
            hits = rng.integers(5, 10, 2) + 8 * variant * (clip == 1)
            truth, guess = hits + 9, hits + rng.integers(0, 9, 2)
            cases.append({"name": frame, "classes": [0, 2], "hits": hits, "truth": truth, "guess": guess})
            sums[variant, clip][:, [0, 2]] += [hits, truth, guess]
        records.append({"parameters": {"variant": ("swin", "glam_10")[variant], "seed": seed}})
        records[-1]["metrics"] = {"cases": cases}
    monkeypatch.setattr(claims, "comparable", lambda *_: (records, []))
    runs = table("camvid", "night", metric="miou", swin=[0.4, 0.42], glam_10=[0.5, 0.52]).query("seed < 2")
    runs.to_csv(tmp_path.joinpath("night/tables").mkdir(parents=True) or tmp_path / "night/tables/camvid.csv")
    found = judged(tmp_path, table("camvid", metric="miou", swin=[0.9], glam_10=[0.1])).loc["camvid_10"]
    gains = []
    for chosen in product(range(3), repeat=3):
        hits, truth, guess = sums[:, chosen].sum(axis=1).swapaxes(0, 1)[..., [0, 2]]
        gains.append(np.subtract(*(hits / (truth + guess - hits)).mean(axis=1)[::-1]))
    low, high = np.quantile(gains, [0.025, 0.975], method="inverted_cdf")  # the same three clips are 1 in 27 resamples
    assert [found["images_low"], found["images_high"]] == pytest.approx([low, high], abs=1e-6)
    # of the stronger evidence, not of the cpu profile's
    assert found[["profile", "n", "verdict"]].tolist() == ["night", 2, claims.UNFINISHED]
    assert "over test clips" in found["measured"]
