"""Short slots on a lent machine: what is taken first, what is stopped in time, and the parcel home."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_study_files import record_of

from glamlib.errors import InputError
from glamlib.study import parcel, slot, studies
from glamlib.study.held_records import held_record
from glamlib.study.pace import Pace
from glamlib.study.plan import write_recorded
from glamlib.study.slot import Slot, Watch, fill
from glamlib.study.slot_order import in_order
from glamlib.study.training import Paused


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pairs_that_answer_the_claims_come_first_with_all_seeds() -> None:
    chosen = [studies.CONTEXT, studies.CAMVID_TINY, studies.CAMVID_TINY_SCHEDULE, studies.DECODERS]
    runs = in_order(chosen, "gpu")
    assert runs[:6] == studies.CAMVID_TINY_SCHEDULE.runs("gpu")  # what they train with comes before
    runs = runs[6:]
    first = [(run.study, run.variant, run.seed) for run in runs[:6]]
    assert first == [("camvid_tiny", variant, seed) for seed in range(3) for variant in ("swin", "glam_10")]
    assert {run.variant for run in runs[6:26]} == {"swin", "tokens_2", "glam_1", "glam_10"}
    assert [run.study for run in runs[-21:]] == ["decoders"] * 21
    everything = [
        run for study in (studies.CONTEXT, studies.CAMVID_TINY, studies.DECODERS) for run in study.runs("gpu")
    ]
    assert len(runs) == len(everything)
    assert all(run in runs for run in everything)


def test_a_record_counts_only_with_the_same_parameters(tmp_path: Path) -> None:
    record_of(tmp_path / "a", "swin", 0, 0.5)
    run = studies.CONTEXT.run("swin", 0, "quick")
    assert held_record(run, [tmp_path / "b", tmp_path / "a"])["metrics"]["miou"] == 0.5
    assert not held_record(replace(run, steps=21), [tmp_path / "a"])
    assert not held_record(replace(run, seed=1), [tmp_path / "a"])
    (tmp_path / "a/runs/context/swin/seed-0/record.json").write_text("{")
    assert not held_record(run, [tmp_path / "a"])


def test_pace_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds a step for 20 steps, then half a second: it is the half second that counts."""
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    pace = Pace()
    for step in range(101, 141):  # of a run that went on after its step 100
        now += 2.0 if step <= 120 else 0.5
        pace(step)
        assert (pace.seconds_a_step is None) == (step < 130)
    assert pace.seconds_a_step == pytest.approx(0.5)


@pytest.mark.parametrize(("deadline", "stopped_at"), [(1000.0, None), (300.0, 30), (25.0, 26)])
def test_a_run_that_cannot_end_is_stopped_when_its_speed_is_known(
    deadline: float, stopped_at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second a step, 500 steps, and a tenth of it for evaluation: 550 seconds."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    watch = Watch(500, deadline, lambda training: 0.1 * training, clock=clock)
    for step in range(1, 501):
        clock.now += 1.0
        if watch(step):
            break
    assert step == (stopped_at or 500)


def test_the_rest_of_the_time_trains_but_leaves_time_to_evaluate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without foretelling it trains on, up to the last step but one: evaluation would not fit behind that."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    watch = Watch(100, 101.0, lambda training: 0.1 * training, predict=False, clock=clock)
    for step in range(1, 101):
        clock.now += 1.0
        if watch(step):
            break
    assert step == 99


def runs_of(seconds: dict[str, float], clock: Clock):
    """Return a `run_one` that takes so long a variant, half of it known as soon as the run begins to train."""

    def run_one(run, results, *, datasets, on_step):
        if run.variant == "broken":
            raise RuntimeError("CUDA out of memory\nand more")
        watch = on_step
        watch.pace = Pace(every=1, warm_up=0)
        for step in range(1, run.steps + 1):
            clock.now += seconds[run.variant] / run.steps
            if watch(step) and step < run.steps:
                raise Paused
        path = record_of(results, run.variant, run.seed, 0.5)
        path.write_text(path.read_text().replace('"train_seconds": 2.0', f'"train_seconds": {seconds[run.variant]}'))
        return path

    return run_one


def test_a_slot_takes_what_fits_and_packs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr(slot, "run_one", runs_of({"swin": 20, "glam_1": 900, "glam_2": 30, "glam_5": 900}, clock))
    made = Slot(200, tmp_path / "out", tmp_path / "work", clock)
    names = ("swin", "glam_1", "glam_2", "glam_5")
    runs = [replace(studies.CONTEXT.run(name, 0, "quick"), steps=100) for name in names]
    runs.insert(1, replace(runs[0], variant="broken"))
    left = fill(made, runs, [], "cpu")
    assert left == ["context glam_1 seed 0", "context glam_5 seed 0"]
    assert made.failed == ["context broken seed 0: CUDA out of memory"]
    assert clock.now <= 200
    with zipfile.ZipFile(tmp_path / "out" / slot.PARCEL) as archive:
        names = {name.split("/")[2] for name in archive.namelist()}
    assert names == {"swin", "glam_2"}


def test_parcel_goes_and_comes(tmp_path: Path) -> None:
    for seed in (0, 1):
        record_of(tmp_path / "there", "swin", seed, 0.5)
    unfinished = tmp_path / "there/runs/context/glam_2/seed-0/history.csv"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_text("step,loss,lr\n")
    (tmp_path / "there/speed").mkdir()
    (tmp_path / "there/speed/encoder-forward-256.json").write_text("[]")
    size = parcel.pack(tmp_path / "there", tmp_path / "parcel.zip")
    assert size == (tmp_path / "parcel.zip").stat().st_size < parcel.LIMIT
    records = parcel.unpack(tmp_path / "parcel.zip", tmp_path / "here")
    assert [path.relative_to(tmp_path).as_posix() for path in records] == [
        f"here/runs/context/swin/seed-{seed}/record.json" for seed in (0, 1)
    ]
    arrived = {path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*") if path.is_file()}
    sent = {path.relative_to(tmp_path / "there") for path in (tmp_path / "there").rglob("*") if path.is_file()}
    assert sent - arrived == {unfinished.relative_to(tmp_path / "there")}
    assert all((tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes() for name in arrived)


def test_a_parcel_over_the_limit_leaves_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record_of(tmp_path, "swin", 0, 0.5)
    noise = np.random.default_rng(0).integers(0, 255, 20_000, dtype=np.uint8)
    np.savez_compressed(path.parent / "pictures.npz", noise=noise)
    monkeypatch.setattr(parcel, "LIMIT", 10_000)
    parcel.pack(tmp_path, tmp_path / "parcel.zip")
    with zipfile.ZipFile(tmp_path / "parcel.zip") as archive:
        assert [name.rpartition("/")[2] for name in archive.namelist()] == ["history.csv", "record.json"]
    monkeypatch.setattr(parcel, "LIMIT", 100)
    with pytest.raises(InputError, match=r"parcel\.zip: \d+ bytes; allowed: 100"):
        parcel.pack(tmp_path, tmp_path / "parcel.zip")


def _parcel(folder: Path, **files: bytes) -> Path:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in files.items():
            archive.writestr(name, value)
    (folder / "parcel.zip").write_bytes(content.getvalue())
    return folder / "parcel.zip"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files | {"../evil.json": b"{}"}, "does not belong into a parcel"),
        (lambda files: files | {"runs/context/../seed-0/history.csv": b""}, "does not belong into a parcel"),
        (lambda files: files | {"runs/context/swin/seed-0/model.safetensors": b""}, "does not belong into a parcel"),
        (lambda files: {name.replace("swin", "glam_1"): value for name, value in files.items()}, "is the record of"),
        (lambda files: {name: b"{}" for name in files if name.endswith("json")}, "not a run's record"),
        (lambda files: {name: b"[]" for name in files if name.endswith("json")}, "not a run's record"),
        (lambda files: {name: value[:9] for name, value in files.items()}, "is damaged"),
        (lambda files: {name: value for name, value in files.items() if name.endswith("csv")}, "has no record"),
    ],
)
def test_a_bad_parcel_is_one_clear_line_and_nothing_is_written(tmp_path: Path, change, message: str) -> None:
    path = record_of(tmp_path / "there", "swin", 0, 0.5)
    files = {
        f"runs/context/swin/seed-0/{file.name}": file.read_bytes()
        for file in path.parent.iterdir()
        if file.suffix != ".npz"
    }
    with pytest.raises(InputError, match=message):
        parcel.unpack(_parcel(tmp_path, **change(files)), tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_no_parcel_at_all(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("text")
    for name in ("none.zip", "text.zip"):
        with pytest.raises(InputError, match=rf"{name}: not a parcel"):
            parcel.unpack(tmp_path / name, tmp_path / "here")


def test_tables_of_recorded_runs_depend_on_them_alone(tmp_path: Path) -> None:
    record_of(tmp_path / "results", "swin", 0, 0.5)
    assert write_recorded(tmp_path / "build", tmp_path / "results") == ["context"]
    lines = (tmp_path / "build/plan.mk").read_text().splitlines()
    assert lines[:2] == [
        "TABLES += $(RESULTS)/tables/context.csv",
        "$(RESULTS)/tables/context.csv: $(RESULTS)/runs/context/swin/seed-0/record.json",
    ]
    assert "05_ablation" not in lines[2]  # it compares all variants
    for variant in studies.CONTEXT.variants:
        record_of(tmp_path / "results", variant, 0, 0.5)
    write_recorded(tmp_path / "build", tmp_path / "results")
    assert "05_ablation" in (tmp_path / "build/plan.mk").read_text()
    assert not (tmp_path / "build/plan").exists()
    with pytest.raises(InputError, match="no records of any study"):
        write_recorded(tmp_path / "build", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "3"), r"--budget 3: must be above 10 seconds"),
        (("--budget", "30", "--profile", "paper", "--study", "context"), r"study context: 'paper'; allowed: quick"),
        (("--budget", "30", "--study", "everything"), r"unknown study 'everything'; allowed: context"),
        (("--budget", "30", "--seeds", "0"), r"--seeds 0: must be at least 1"),
        (("--budget", "30", "--speed", "decoder-64"), r"'decoder-64': must be encoder or model"),
        (("--budget", "30", "--study", "camvid_imagenet"), r"no folder camvid or no ImageNet weights in weights below"),
    ],
)
def test_bad_options_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["slot", *arguments, "--out", str(tmp_path), "--work", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"^error: [^\\n]*{message}"):
        slot.main()
