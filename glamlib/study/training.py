"""The training loop, on accelerate: schedule, mixed precision, clipping, history, checkpoints, exact resume.

What a step sees depends on (seed, step) alone: the order of images and each image's augmentation are drawn from
counters, not from a generator whose state would have to be carried along. So a run that is killed and started again
goes on from its checkpoint to bit-identical weights.
"""

import glamlib.torchvision_schemas  # noqa: F401  (before timm)

# isort: split
import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from timm.scheduler import PolyLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from glamlib.data.registry import SegmentationDataset
from glamlib.data.volumes.dataset import VolumeDataset
from glamlib.errors import InputError

from .checkpoints import load_checkpoint, read_progress, save_checkpoint
from .parameters import RunParameters
from .sources import computing_digest
from .tasks import Transform, task_of

HISTORY_EVERY = 10  # steps that one row of the history averages
_NO_DECAY = ("relative_position_bias_table", "global_tokens")


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

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(position, len(self.dataset))
        image, label = self.dataset[int(self._order(epoch)[place])]
        if self.transform is None:
            return image, label
        # the third word keeps this stream apart from the orders'
        return self.transform(image, label, np.random.default_rng([self.seed, position, 1]))


class StepBatches:
    """The batches of positions from step ``start`` to ``steps``, for a loader's ``batch_sampler``."""

    def __init__(self, start: int, steps: int, batch_size: int) -> None:
        self.start, self.steps, self.batch_size = start, steps, batch_size
        self.drop_last = True  # accelerate asks

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            yield list(range(step * self.batch_size, (step + 1) * self.batch_size))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return AdamW's groups: no decay on norms and biases, position bias tables and global tokens."""
    decayed, spared = [], []
    for name, parameter in model.named_parameters():
        spared_one = parameter.ndim <= 1 or name.endswith(_NO_DECAY)
        (spared if spared_one else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def fingerprint(run: RunParameters) -> str:
    """Return a digest of a run's parameters and the code: a checkpoint of others is not resumed."""
    return hashlib.sha256(json.dumps([run.to_dict(), computing_digest()], sort_keys=True).encode()).hexdigest()[:16]


def train(
    model: nn.Module,
    dataset: SegmentationDataset | VolumeDataset,
    run: RunParameters,
    checkpoint: Path,
    on_step: Callable[[int], None] | None = None,
) -> tuple[list[dict[str, float]], float]:
    """Train ``model`` in place, from ``checkpoint`` on if there is one of the same parameters and code.

    Args:
        model: its auxiliary head, if it has one, joins the loss.
        dataset: images or volumes with labels; all of one size where ``run.augment`` is empty.
        run: steps, batch size, learning rate and the rest.
        checkpoint: file that is written every ``run.checkpoint_every`` steps and at the end.
        on_step: called with the number of finished steps after each.

    Returns:
        The history, a row (step, loss, lr) every `HISTORY_EVERY` steps and at the end, and the seconds spent training.

    Raises:
        InputError: no such device, a checkpoint that cannot be read or written, an unusable image.
        FloatingPointError: the loss is no longer finite.
    """
    torch.set_num_threads(run.threads)
    accelerator = Accelerator(
        cpu=resolve_device(run.device) == "cpu", mixed_precision="bf16" if run.precision == "bf16" else "no"
    )
    optimizer = torch.optim.AdamW(parameter_groups(model, run.weight_decay), lr=run.lr)
    schedule = PolyLRScheduler(
        optimizer,
        t_initial=run.steps,
        power=1.0,
        warmup_t=run.warmup_steps,
        warmup_lr_init=run.lr * 1e-6,
        t_in_epochs=False,
    )
    model.to(accelerator.device)
    progress = {"step": 0, "history": [], "loss": 0.0, "seconds": 0.0, "fingerprint": fingerprint(run)}
    if checkpoint.exists() and read_progress(checkpoint)["fingerprint"] == progress["fingerprint"]:
        progress = load_checkpoint(checkpoint, model, optimizer)
    wrapped, wrapped_optimizer = accelerator.prepare(model, optimizer)
    task = task_of(run)
    view = TrainingView(dataset, run.seed, task.transform(dataset, run))
    loader = accelerator.prepare(
        DataLoader(
            view,
            batch_sampler=StepBatches(progress["step"], run.steps, run.batch_size),
            num_workers=run.workers,
            generator=torch.Generator(),  # else the loader would draw from the model's random state
        )
    )
    model.train()
    started = time.perf_counter() - progress["seconds"]
    bar = tqdm(total=run.steps, initial=progress["step"], disable=None, unit="step", mininterval=2)
    for images, labels in loader:
        step = progress["step"]
        schedule.step_update(step)
        with accelerator.autocast():
            outputs = wrapped(task.prepare(images), auxiliary=True)
        loss = task.loss(outputs, labels, dataset.ignore_index)
        wrapped_optimizer.zero_grad()
        accelerator.backward(loss)
        if run.clip_norm:
            accelerator.clip_grad_norm_(wrapped.parameters(), run.clip_norm)
        wrapped_optimizer.step()
        progress["step"] = step + 1
        progress["loss"] += loss.item()
        if (step + 1) % HISTORY_EVERY == 0 or step + 1 == run.steps:
            mean = progress["loss"] / (step % HISTORY_EVERY + 1)
            if not np.isfinite(mean):
                raise FloatingPointError(f"the loss is {mean} at step {step + 1}; a lower lr may help")
            progress["history"].append({"step": step + 1, "loss": mean, "lr": optimizer.param_groups[0]["lr"]})
            progress["loss"] = 0.0
        if (step + 1) % run.checkpoint_every == 0 or step + 1 == run.steps:
            progress["seconds"] = time.perf_counter() - started
            save_checkpoint(checkpoint, model, optimizer, progress)
        bar.update()
        if on_step is not None:
            on_step(step + 1)
    bar.close()
    model.eval()
    return progress["history"], progress["seconds"]


def history_csv(history: list[dict[str, float]]) -> str:
    """Return a history as CSV text: step, loss (mean since the row before), lr."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", "loss", "lr"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
