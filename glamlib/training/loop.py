"""Blocks compiled by torch.compile for as long as a training lasts.

MERGED: The training loop, on accelerate: schedule, mixed precision, clipping, history, checkpoints, exact resume.

What a step sees depends on (seed, step) alone: the order of images and each image's augmentation are drawn from
counters, not from a generator whose state would have to be carried along. So a run that is killed and started again
goes on from its checkpoint to bit-identical weights.

A step's batch may be split over processes (torchrun, accelerate launch) and over turns within each (``accumulate``):
each part's loss is weighted by its share of the batch's valid pixels, so gradients are those of the whole batch.
"""

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from timm.scheduler import PolyLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import glamlib.torchvision_schemas  # noqa: F401  (before timm)
from glamlib.data.datasets import SegmentationDataset
from glamlib.data.volumes import VolumeDataset
from glamlib.errors import InputError
from glamlib.layers.block import GlamBlock
from glamlib.studies.parameters import RunParameters
from glamlib.training.batches import check_split, shares_of, synchronise_norms, weighted
from glamlib.training.checkpoint import load_checkpoint, read_progress, save_checkpoint
from glamlib.training.tasks import Transform, task_of

# A network's blocks differ in size, shift and tokens, and each kind is compiled for itself; torch gives up at 8.
_KINDS = 64


def compile_blocks(model: nn.Module) -> None:
    """Compile every `GlamBlock` of ``model``, each for the sizes it meets, when it first meets them.

    Weights and their names stay. Blocks of the same kind share their code.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _KINDS)
    for module in model.modules():
        if isinstance(module, GlamBlock):
            module.forward = torch.compile(module.forward, dynamic=False)


@contextmanager
def compiled_blocks(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Compile the blocks inside, if ``wanted``, and leave them as they were: test images have sizes of their own.

    A block that cannot be compiled runs as it is: a missing compiler is no reason to stop a run.
    """
    if wanted:
        torch._dynamo.config.suppress_errors = True
        compile_blocks(model)
    try:
        yield
    finally:
        for module in model.modules():
            if isinstance(module, GlamBlock):
                module.__dict__.pop("forward", None)


# isort: split


HISTORY_EVERY = 10  # steps that one row of the history averages
_NO_DECAY = ("relative_position_bias_table", "global_tokens")
# Parts of names: custom_keys of the released configurations (themyrl/glam at 44abe55)
_NO_DECAY_RELEASED = ("absolute_pos_embed", "relative_position_bias_table", "norm")


class Paused(Exception):
    """Training stopped because ``on_step`` asked for it; the checkpoint holds all it has done."""


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto"; InputError where CUDA is asked for and absent."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda': this machine has no CUDA device that torch can use; allowed here: cpu, auto")
    return device


class TrainingView(Dataset):
    """A data set by position in the whole run: position p is image ``order(epoch)[p % n]`` of epoch ``p // n``.

    ``[p]`` is (image, label), augmented by a generator that depends on (seed, p) alone.
    """

    def __init__(self, dataset: SegmentationDataset | VolumeDataset, seed: int, transform: Transform | None) -> None:
        self.dataset = dataset
        self.seed = seed
        self.transform = transform
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def _draw_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))

    def item(self, position: int) -> int:
        """Return which item of the data set is at a position."""
        epoch, place = divmod(position, len(self.dataset))
        return int(self._order(epoch)[place])

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        image, label = self.dataset[self.item(position)]
        if self.transform is None:
            return image, label
        # the third word keeps this stream apart from the orders'
        return self.transform(image, label, np.random.default_rng([self.seed, position, 1]))


class StepBatches:
    """The batches of positions from step ``start`` to ``steps``, for a loader's ``batch_sampler``.

    A step's ``batch_size`` positions are split evenly over ``processes``, and each process's into ``turns``: what comes
    is those of process ``rank``, turn by turn.
    """

    def __init__(
        self, start: int, steps: int, batch_size: int, *, turns: int = 1, rank: int = 0, processes: int = 1
    ) -> None:
        self.start, self.steps, self.turns = start, steps, turns
        self.size = batch_size // (turns * processes)
        self.rank, self.processes = rank, processes

    def __len__(self) -> int:
        return (self.steps - self.start) * self.turns

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            for turn in range(self.turns):
                part = (step * self.processes + self.rank) * self.turns + turn
                yield list(range(part * self.size, (part + 1) * self.size))


def parameter_groups(model: nn.Module, weight_decay: float, decay: str = "matrices") -> list[dict[str, object]]:
    """Return AdamW's two groups, the decayed and the spared.

    With ``decay`` "matrices", no decay on norms and biases, position bias tables and global tokens; with "released", as
    in the released configurations, on position bias tables and what is called a norm alone: biases, tokens and batch
    normalisation decay.
    """
    decayed, spared = [], []
    for name, parameter in model.named_parameters():
        if decay == "released":
            spared_one = any(part in name for part in _NO_DECAY_RELEASED)
        else:
            spared_one = parameter.ndim <= 1 or name.endswith(_NO_DECAY)
        (spared if spared_one else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def fingerprint(run: RunParameters, code: str) -> str:
    """Return a digest of a run's parameters and the code: a checkpoint of others is not resumed."""
    return hashlib.sha256(json.dumps([run.to_dict(), code], sort_keys=True).encode()).hexdigest()[:16]


def train(
    model: nn.Module,
    dataset: SegmentationDataset | VolumeDataset,
    run: RunParameters,
    checkpoint: Path,
    on_step: Callable[[int], object] | None = None,
    code: str = "",
) -> tuple[list[dict[str, float]], float]:
    """Train ``model`` in place, from ``checkpoint`` on if there is one of the same parameters and code.

    Called in every process of a launcher (torchrun, accelerate launch), it trains one model in all of them: the batch
    of a step is split over them, and process 0 writes the checkpoint, which all must be able to read. Resuming is exact
    for the same number of processes; for another it goes on with the same data in the same order.

    Args:
        model: its auxiliary head, if it has one, joins the loss.
        dataset: images or volumes with labels; all of one size where ``run.augment`` is empty.
        run: steps, batch size, learning rate and the rest.
        checkpoint: file that is written every ``run.checkpoint_every`` steps and at the end.
        code: digest of the code, for the checkpoint's fingerprint.
        on_step: called with the number of finished steps after each; what is true in answer stops the training.

    Returns:
        The history, a row (step, loss, lr) every `HISTORY_EVERY` steps and at the end, and the seconds spent training.

    Raises:
        InputError: no such device, a batch that cannot be split, a checkpoint that cannot be read or written, an
            unusable image.
        FloatingPointError: the loss is no longer finite.
        Paused: ``on_step`` asked for it; the checkpoint is written, and another call goes on from there.
    """
    with compiled_blocks(model, run.compile):
        return _train(model, dataset, run, checkpoint, on_step, code)


def _train(
    model: nn.Module,
    dataset: SegmentationDataset | VolumeDataset,
    run: RunParameters,
    checkpoint: Path,
    on_step: Callable[[int], object] | None,
    code: str,
) -> tuple[list[dict[str, float]], float]:
    accelerator = Accelerator(
        cpu=resolve_device(run.device) == "cpu",
        mixed_precision="bf16" if run.precision == "bf16" else "no",
        # the released networks have weights that nothing reads
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    torch.set_num_threads(run.threads)
    processes, rank = accelerator.num_processes, accelerator.process_index
    check_split(run, processes)
    synchronise_norms(model, accelerator.device, processes)
    on_gpu = accelerator.device.type == "cuda"
    model.to(accelerator.device)
    if on_gpu and dataset[0][0].ndim == 3:  # an encoder's maps are channels-last, and a GPU's convolutions like it so
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameter_groups(model, run.weight_decay, run.decay), lr=run.lr, fused=on_gpu)
    schedule = PolyLRScheduler(
        optimizer,
        t_initial=run.steps,
        power=1.0,
        warmup_t=run.warmup_steps,
        warmup_lr_init=run.lr * 1e-6,
        t_in_epochs=False,
    )
    progress = {"step": 0, "history": [], "loss": 0.0, "seconds": 0.0, "fingerprint": fingerprint(run, code)}
    if checkpoint.exists() and read_progress(checkpoint)["fingerprint"] == progress["fingerprint"]:
        progress = load_checkpoint(checkpoint, model, optimizer)
    if len({int(step) for step in accelerator.gather(torch.tensor([progress["step"]], device=accelerator.device))}) > 1:
        raise InputError(f"{checkpoint}: not the same in all processes; all machines must share its file system")
    wrapped, wrapped_optimizer = accelerator.prepare(model, optimizer)
    task = task_of(run)
    view = TrainingView(dataset, run.seed, task.transform(dataset, run))
    parts = StepBatches(
        progress["step"], run.steps, run.batch_size, turns=run.accumulate, rank=rank, processes=processes
    )
    batches = iter(
        DataLoader(
            view,
            batch_sampler=parts,
            num_workers=run.workers,
            pin_memory=on_gpu,
            generator=torch.Generator(),  # else the loader would draw from the model's random state
        )
    )
    model.train()
    loss_sum = torch.tensor(progress["loss"], dtype=torch.float64, device=accelerator.device)
    started = time.perf_counter() - progress["seconds"]

    def keep() -> None:
        progress.update(seconds=time.perf_counter() - started, loss=loss_sum.item())
        if rank == 0:
            save_checkpoint(checkpoint, model, optimizer, progress)

    quiet = None if rank == 0 else True
    bar = tqdm(total=run.steps, initial=progress["step"], disable=quiet, unit="step", mininterval=2)
    for step in range(progress["step"], run.steps):
        schedule.step_update(step)
        if processes > 1:  # stochastic depth differs from process to process, and has no state to carry along
            words = np.random.SeedSequence([run.seed, step, rank, 2]).generate_state(1)
            torch.manual_seed(int(words[0]))
        turns = [next(batches) for _ in range(run.accumulate)]
        shares = shares_of(accelerator, [labels for _, labels in turns], dataset.ignore_index)
        wrapped_optimizer.zero_grad()
        step_loss = torch.zeros((), dtype=torch.float64, device=accelerator.device)
        for turn, ((images, labels), share) in enumerate(zip(turns, shares, strict=True), start=1):
            images, labels = (tensor.to(accelerator.device, non_blocking=True) for tensor in (images, labels))
            # processes exchange gradients once a step
            with nullcontext() if turn == run.accumulate else accelerator.no_sync(wrapped):
                with accelerator.autocast():
                    outputs = wrapped(task.prepare(images), auxiliary=True)
                loss = weighted(task.loss(outputs, labels, dataset.ignore_index), share, outputs)
                accelerator.backward(loss)
            step_loss += loss.detach()
        if run.clip_norm:
            accelerator.clip_grad_norm_(wrapped.parameters(), run.clip_norm)
        wrapped_optimizer.step()
        progress["step"] = step + 1
        if processes > 1:
            step_loss = accelerator.reduce(step_loss, "mean")
        loss_sum += step_loss  # stays on the device: reading it would make a GPU wait for every step
        if (step + 1) % HISTORY_EVERY == 0 or step + 1 == run.steps:
            mean = loss_sum.item() / (step % HISTORY_EVERY + 1)
            if not np.isfinite(mean):
                raise FloatingPointError(f"the loss is {mean} at step {step + 1}; a lower lr may help")
            progress["history"].append({"step": step + 1, "loss": mean, "lr": optimizer.param_groups[0]["lr"]})
            loss_sum.zero_()
        if (step + 1) % run.checkpoint_every == 0 or step + 1 == run.steps:
            keep()
        bar.update()
        if on_step is not None and on_step(step + 1) and step + 1 < run.steps:
            keep()
            bar.close()
            raise Paused(f"after step {step + 1} of {run.steps}")
    bar.close()
    accelerator.wait_for_everyone()  # the checkpoint is whole before anyone goes on
    model.eval()
    return progress["history"], progress["seconds"]


def history_csv(history: list[dict[str, float]]) -> str:
    """Return a history as CSV text: step, loss (mean since the row before), lr."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", "loss", "lr"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
