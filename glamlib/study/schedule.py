"""A learning rate chosen on validation data, once for all variants of a study."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from .held_records import held_record
from .parameters import RunParameters
from .studies import find_study


def with_chosen_rate(run: RunParameters, results: list[Path]) -> RunParameters:
    """Return a run with the learning rate that its study's schedule found best: by the mean of the metric over all runs
    of that rate.

    The run comes back as it is where its study has no schedule, and where the results folders do not hold all runs of
    the schedule: of candidates that have not all run none is the best.
    """
    schedule = find_study(run.study).schedule
    if schedule is None:
        return run
    scores = defaultdict(list)
    for candidate in schedule.runs(run.profile):
        record = held_record(candidate, results)
        if record is None:
            return run
        scores[candidate.lr].append(record["metrics"][schedule.metric])
    return replace(run, lr=max(scores, key=lambda rate: sum(scores[rate]) / len(scores[rate])))
