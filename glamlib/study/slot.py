"""What is missing of a profile's runs, as many as fit into a short slot on a machine with a GPU.

    python -m glamlib.study.slot --budget SECONDS --out FOLDER [--profile gpu] [--study all] [--speed GROUP ...]

For machines that are lent for minutes, have no network, and nothing but torch, timm, einops, accelerate, safetensors,
numpy, pandas and pillow. Runs are taken by `slot_order`, each in this process, so that data and compiled code are
shared. The first steps of a run tell its speed; one that cannot end in time is paused at once, and its checkpoint
stays for another call on the same machine. FOLDER/gpu-results.zip (`parcel`) is written anew after every run.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from glamlib.errors import InputError

from .datasets import AnyDataset, run_data
from .files import write_whole
from .held_records import held_record
from .pace import Pace
from .parameters import RunParameters
from .parcel import pack
from .places import ROOT
from .plan import chosen_studies
from .run import run_one
from .schedule import with_chosen_rate
from .slot_order import in_order
from .speed import Group, contenders, matmul_rates, measure
from .studies import check_profile
from .training import Paused, resolve_device

PARCEL = "gpu-results.zip"
WORK = ROOT / "build" / "slot"  # finished runs, until a parcel takes them to the repository
_MARGIN = 10.0  # seconds kept for writing the checkpoint and the parcel
_EVALUATION = 0.15  # of the training's seconds, as long as no run of the study has told
_SPEED_SECONDS = 240.0  # of a group of the speed benchmark, as long as none has told: compiling takes minutes
_HELD = 4  # data sets


class HeldData:
    """The data of the last runs: those of a seed serve all variants."""

    def __init__(self) -> None:
        self._held: dict[str, AnyDataset] = {}

    def __call__(self, run: RunParameters) -> tuple[AnyDataset, AnyDataset]:
        """Return the training and the test data of a run."""
        return self._get(run, "train"), self._get(run, "test")

    def _get(self, run: RunParameters, part: str) -> AnyDataset:
        key = json.dumps([run.dataset, run.data, part, run.seed if part == "train" else None], sort_keys=True)
        if key not in self._held:
            while len(self._held) >= _HELD:
                self._held.pop(next(iter(self._held)))
            self._held[key] = run_data(run, part)
        return self._held[key]


class Watch:
    """Stops a training that cannot end in time; called with the finished steps after each (`train`'s ``on_step``).

    Args:
        steps: of the whole run.
        deadline: when the run must have its record, by ``clock``.
        evaluation: foretells the seconds after training from those of training.
        predict: False to train until the deadline; before its last step a run is stopped all the same if its
            evaluation would not end in time.
    """

    def __init__(
        self,
        steps: int,
        deadline: float,
        evaluation: Callable[[float], float],
        predict: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.steps = steps
        self.deadline = deadline
        self.evaluation = evaluation
        self.predict = predict
        self.clock = clock
        self.pace = Pace()

    def __call__(self, step: int) -> bool:
        self.pace(step)
        left = self.deadline - self.clock()
        if self.pace.seconds_a_step is None or not (self.predict or step == self.steps - 1):
            return left < 0
        return left < self.needs(self.steps - step)

    def needs(self, steps: int) -> float:
        """Return the seconds of so many steps and of what comes after training."""
        return steps * self.pace.seconds_a_step + self.evaluation(self.steps * self.pace.seconds_a_step)


class Slot:
    """One call: a budget of seconds, from now on, and what is known of speeds so far.

    Args:
        budget: seconds.
        out: folder for the parcel.
        work: where finished runs are kept.
        clock: seconds, from any start.
        results: more records, beside those in ``work``.
    """

    def __init__(
        self,
        budget: float,
        out: Path,
        work: Path,
        clock: Callable[[], float] = time.monotonic,
        results: Path | None = None,
    ) -> None:
        self.clock = clock
        self.deadline = clock() + budget - _MARGIN
        self.out = out
        self.work = work
        self.done = [folder for folder in (results, work) if folder is not None]
        self.data = HeldData()
        self.seconds: dict[str, float] = {}  # of a whole run, by what decides it
        self.after: dict[str, float] = {}  # seconds behind training over those of training, by study
        self.failed: list[str] = []

    @property
    def left(self) -> float:
        return self.deadline - self.clock()

    def run(self, run: RunParameters, predict: bool = True) -> bool:
        """Run one whole, and pack; False if it could not end in time. A run that fails is listed and counts as done."""
        if predict and self.left < self.seconds.get(_kind(run), 1.0):
            return False
        run = with_chosen_rate(run, self.done)  # its schedule may have ended just now
        began = self.clock()
        share = self.after.get(run.study, _EVALUATION)
        watch = Watch(run.steps, self.deadline, lambda training: share * training, predict, self.clock)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            record = run_one(run, self.work, datasets=self.data, on_step=watch)
        except Paused:
            if watch.pace.seconds_a_step is not None:
                self.seconds[_kind(run)] = watch.needs(run.steps)
            return False
        except (InputError, RuntimeError, FloatingPointError) as error:  # of memory, too: the others may well run
            self.failed.append(f"{_name(run)}: {str(error).splitlines()[0]}")
            return True
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        training = json.loads(record.read_text())["train_seconds"]
        self.after[run.study] = max(self.clock() - began - training, 0.0) / training
        print(f"{_name(run)}: {self.clock() - began:.0f} s, {self.left:.0f} s left", flush=True)
        self.pack()
        return True

    def speed(self, name: str, device: str) -> bool:
        """Measure one group of the speed benchmark, and pack; False if there is no time for it."""
        file = self.work / "speed" / f"{name}.json"
        if self.left < self.seconds.get("speed", _SPEED_SECONDS):
            return False
        began, group = self.clock(), Group.parse(name)
        rates = matmul_rates(device, 1)
        listed = contenders(group, device, rates["bf16"] > rates["fp32"])
        write_whole(file, json.dumps(measure(group, listed, device, 1, 5, rates), indent=1) + "\n")
        self.seconds["speed"] = max(self.seconds.get("speed", 0.0), 1.5 * (self.clock() - began))
        print(f"speed {name}: {self.clock() - began:.0f} s, {self.left:.0f} s left", flush=True)
        self.pack()
        return True

    def pack(self) -> None:
        """Write all that is finished into the parcel."""
        pack(self.work, self.out / PARCEL)


def _kind(run: RunParameters) -> str:
    """Return what decides a run's time."""
    values = run.to_dict()
    return json.dumps({name: values[name] for name in ("study", "model", "overrides")}, sort_keys=True)


def _name(run: RunParameters) -> str:
    return f"{run.study} {run.variant} seed {run.seed}"


def fill(slot: Slot, runs: list[RunParameters], groups: list[str], device: str) -> list[str]:
    """Take speed groups and runs, in order, as long as there is time; returns the names of what is left.

    What time is left at the end goes to the first run that did not fit, up to a checkpoint.
    """
    left_groups = [name for name in groups if not slot.speed(name, device)]
    unfinished = [run for run in runs if not slot.run(run)]
    if unfinished and slot.left > 2 * _MARGIN and slot.run(unfinished[0], predict=False):
        unfinished.pop(0)
    return [f"speed {name}" for name in left_groups] + [_name(run) for run in unfinished]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, required=True, help="seconds until this program ends")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {PARCEL}")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "gpu", help="records here are not run again")
    parser.add_argument("--profile", default="gpu")
    parser.add_argument("--study", default="all")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--speed", nargs="*", default=[], metavar="GROUP", help="groups of the speed benchmark")
    parser.add_argument("--work", type=Path, default=WORK, help="where finished runs are kept between calls")
    options = parser.parse_args()
    try:
        if not options.budget > _MARGIN:
            raise InputError(f"--budget {options.budget:g}: must be above {_MARGIN:g} seconds")
        if options.seeds is not None and options.seeds < 1:
            raise InputError(f"--seeds {options.seeds}: must be at least 1")
        groups = [Group.parse(name).name for name in options.speed]
        slot = Slot(options.budget, options.out.resolve(), options.work.resolve(), results=options.results.resolve())
        studies = chosen_studies(options.study, check_profile(options.profile))
        runs = in_order(studies, options.profile, options.seeds)
        runs = [run for run in runs if held_record(with_chosen_rate(run, slot.done), slot.done) is None]
        device = resolve_device(runs[0].device if runs else "auto")
        measured = {file.stem for folder in slot.done for file in (folder / "speed").glob("*.json")}
        groups = [name for name in groups if name not in measured]
        print(f"{len(runs)} runs and {len(groups)} speed groups are missing; {slot.left:.0f} s on {device}", flush=True)
        left = fill(slot, runs, groups, device)
        slot.pack()
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"{len(left)} left over{': ' if left else ''}{', '.join(left[:5])}{', ...' if len(left) > 5 else ''}")
    for line in slot.failed:
        print(f"failed: {line}", file=sys.stderr)
    if slot.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
