"""The training loop, on accelerate.

A run that is killed and started again goes on from its checkpoint to bit-identical weights. A step's batch may be split
over processes (torchrun, accelerate launch) and over micro-batches within each (``accumulate``): every part's loss is
divided by the valid pixels of the whole batch, so gradients are those of the whole batch.
"""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from timm.optim import param_groups_weight_decay
from timm.scheduler import PolyLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from glamlib.errors import InputError
from glamlib.evaluation.inference import memory_suffices
from glamlib.layers.block import GlamBlock
from glamlib.studies.parameters import RunParameters
from glamlib.training.checkpoint import NO_EFFECT, changes, read_checkpoint, restore, save_checkpoint, set_aside
from glamlib.training.datasets import AnyDataset, data_identity
from glamlib.training.losses import balanced_weights, total_weight
from glamlib.training.tasks import Transform, task_of

HISTORY_EVERY = 10  # steps that one row of the history averages
_LESS = "a smaller batch_size, more micro-batches (accumulate), smaller crops (augment), or fewer runs at a time"
# Parts of names: custom_keys of the released configurations (themyrl/glam at 44abe55)
_NO_DECAY_RELEASED = ("absolute_pos_embed", "relative_position_bias_table", "norm")


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto"; InputError where CUDA is asked for and absent."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda': this machine has no CUDA device that torch can use; allowed here: cpu, auto")
    return device


def compile_blocks(model: nn.Module) -> None:
    """Compile every `GlamBlock` of ``model`` for each size it meets; weights keep their names."""
    torch._dynamo.config.suppress_errors = True  # without a compiler it runs as it is
    # blocks differ in size, shift and tokens, and each kind is compiled for itself; torch gives up at 8
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for module in model.modules():
        if isinstance(module, GlamBlock):
            module.compile(dynamic=False)


def parameter_groups(model: nn.Module, weight_decay: float, decay: str = "matrices") -> list[dict[str, object]]:
    """Return AdamW's groups: parameters without weight decay, and with it.

    With ``decay`` "matrices", norms, biases, position bias tables and global tokens do not decay; with "released" only
    position bias tables and what is called a norm do not.
    """
    if decay == "matrices":
        tables_and_tokens = ("*relative_position_bias_table", "*global_tokens")
        return param_groups_weight_decay(model, weight_decay, no_weight_decay_list=tables_and_tokens)
    groups = [{"params": [], "weight_decay": 0.0}, {"params": [], "weight_decay": weight_decay}]
    for name, parameter in model.named_parameters():
        groups[not any(part in name for part in _NO_DECAY_RELEASED)]["params"].append(parameter)
    return groups


def _placed(model: nn.Module, accelerator: Accelerator, ndim: int) -> nn.Module:
    """Return the model on its device, as it is fastest there."""
    model.to(accelerator.device)
    if accelerator.device.type != "cuda":
        return model
    if ndim == 2:  # a GPU's 2D convolutions are faster on channels-last maps
        model.to(memory_format=torch.channels_last)
    if accelerator.num_processes > 1:  # torch has no such layer for the CPU: each process normalises its own part
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def _progress(
    accelerator: Accelerator, checkpoint: Path, made_by: dict[str, object], model: nn.Module, optimizer: AdamW
) -> dict[str, object]:
    """Return how far the run is: put into model and optimiser what its checkpoint holds, if it has one."""
    fresh = {"step": 0, "history": [], "loss": 0.0, "seconds": 0.0, "made_by": made_by}
    tensors, held = read_checkpoint(checkpoint) if checkpoint.exists() else ({}, fresh)
    if accelerator.gather(torch.tensor([held["step"]], device=accelerator.device)).unique().numel() > 1:
        raise InputError(f"{checkpoint}: not the same in all processes; all machines must share its file system")
    if not held["step"]:
        return fresh
    if decisive := changes(held["made_by"], made_by):
        if accelerator.is_main_process:
            print(f"{', '.join(decisive)}: starting again; the old checkpoint is kept as {set_aside(checkpoint).name}")
        return fresh
    restore(checkpoint, tensors, model, optimizer)
    if rounding := changes(held["made_by"], made_by, NO_EFFECT):
        accelerator.print(f"{', '.join(rounding)}: going on from step {held['step']}; last digits may change")
    return held | {"made_by": made_by}


def _gradients(
    accelerator: Accelerator, wrapped: nn.Module, parts: list, run: RunParameters, void: int, weights: Tensor | None
) -> Tensor:
    """Add up the gradients of a step, whose images and labels come in ``parts``; return the mean loss of processes."""
    task, device = task_of(run), accelerator.device
    parts = [tuple(tensor.to(device, non_blocking=True) for tensor in part) for part in parts]
    # gradients are averaged over processes, so each divides its sum of losses by the mean count of valid pixels
    count = sum(total_weight(labels, void, weights) for _, labels in parts)
    count = accelerator.reduce(count, "sum").clamp(min=1) / accelerator.num_processes
    total = torch.zeros((), dtype=torch.float64, device=device)
    for number, (images, labels) in enumerate(parts, start=1):
        # processes exchange gradients once a step
        with nullcontext() if number == len(parts) else accelerator.no_sync(wrapped):
            with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"):
                outputs = wrapped(task.prepare(images), auxiliary=True)
            loss = task.loss(outputs, labels, void, count, weights)
            loss.backward()
        total += loss.detach()
    return accelerator.reduce(total, "mean")  # stays on the device: a GPU need not wait for every step


class TrainingView(Dataset):
    """A data set by position in the whole run: every epoch has an order of its own.

    ``[p]`` is the (image, label) at position p, augmented by a generator that depends on (seed, p) alone.
    """

    def __init__(self, dataset: AnyDataset, seed: int, transform: Transform | None) -> None:
        self.dataset, self.seed, self.transform = dataset, seed, transform
        self._orders: dict[int, np.ndarray] = {}  # of the epoch

    def item(self, position: int) -> int:
        """Return which item of the data set is at a position."""
        epoch, place = divmod(position, len(self.dataset))
        if epoch not in self._orders:
            self._orders = {epoch: np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))}
        return int(self._orders[epoch][place])

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        image, label = self.dataset[self.item(position)]
        if self.transform is None:
            return image, label
        # the third word keeps this stream apart from the orders'
        return self.transform(image, label, np.random.default_rng([self.seed, position, 1]))


def step_batches(run: RunParameters, start: int, rank: int = 0, processes: int = 1) -> list[range]:
    """Return the positions of each micro-batch of process ``rank`` from step ``start``, a loader's ``batch_sampler``.

    A step's batch is split evenly over ``processes``, and each process's part into ``run.accumulate`` micro-batches.
    Raises InputError where the batch cannot be split so.
    """
    parts, how = processes * run.accumulate, f"{processes} processes, accumulate={run.accumulate}"
    if run.batch_size % parts:
        raise InputError(f"parameter batch_size={run.batch_size}: must be a multiple of {parts} ({how})")
    if parts > 1 and not task_of(run).divisible:
        raise InputError(f"{how}: {run.dataset} trains in one process, accumulate=1: its loss is of the whole batch")
    size = run.batch_size // parts
    return [
        range(part * size, (part + 1) * size)
        for step in range(start, run.steps)
        for part in range((step * processes + rank) * run.accumulate, (step * processes + rank + 1) * run.accumulate)
    ]


def train(
    model: nn.Module,
    dataset: AnyDataset,
    run: RunParameters,
    checkpoint: Path,
    *,
    code: str = "",
    validation: AnyDataset | None = None,
    on_best: Callable[[], object] = lambda: None,
    on_step: Callable[[int], object] | None = None,
) -> tuple[list[dict[str, float]], float]:
    """Train ``model`` in place, from ``checkpoint`` on if there is one that the same parameters, data and code made.

    Process 0 of a launcher writes the checkpoint, which all must be able to read. Resuming is exact for the same number
    of processes; for another it goes on with the same data in the same order. A checkpoint of another run is kept under
    another name. ``code`` is a digest of the code that decides what is computed.

    Every ``run.validate_every`` steps and after the last the task's score on ``validation`` is taken. This changes no
    bit of the training, but ``run.stop_at`` ends it. ``on_best`` is called, in process 0, for each new highest score.

    Returns the history, a row (step, loss, lr, val_METRIC if taken) every `HISTORY_EVERY` steps, at every validation
    and at the end, and the seconds of training. Raises InputError for no such device, a batch that cannot be split or
    does not fit into the memory, an unusable checkpoint or image, and a loss that is no longer finite.
    """
    accelerator = Accelerator(
        cpu=resolve_device(run.device) == "cpu",
        mixed_precision="no",  # whatever a launcher says: autocast below knows the run's precision
        # the released networks have weights that nothing reads
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if run.threads > os.cpu_count():  # torch may crash starting them
        raise InputError(f"parameter threads={run.threads}: this machine has {os.cpu_count()} cores")
    torch.set_num_threads(run.threads)
    task, device, rank = task_of(run), accelerator.device, accelerator.process_index
    model = _placed(model, accelerator, task.ndim)
    optimizer = AdamW(parameter_groups(model, run.weight_decay, run.decay), lr=run.lr, fused=True)
    warmup = {"warmup_t": run.warmup_steps, "warmup_lr_init": run.lr * 1e-6}
    schedule = PolyLRScheduler(optimizer, t_initial=run.steps, power=1.0, t_in_epochs=False, **warmup)
    made_by = run.to_dict() | {"data contents": data_identity(dataset), "code": code}
    if run.validate_every:
        made_by["validation contents"] = data_identity(validation)
    else:
        del made_by["evaluate"]  # of tests alone
    progress = _progress(accelerator, checkpoint, made_by, model, optimizer)
    weights = balanced_weights(dataset).to(device) if run.loss == "balanced" else None

    batches = iter(
        DataLoader(
            TrainingView(dataset, run.seed, task.transform(dataset, run)),
            batch_sampler=step_batches(run, progress["step"], rank, accelerator.num_processes),
            num_workers=run.workers,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else the loader would draw from the model's random state
        )
    )
    wrapped = accelerator.prepare(model)
    wrapped.train()
    if run.compile:
        compile_blocks(model)

    history, metric = progress["history"], f"val_{task.score_name(run)}"
    loss_sum = torch.tensor(progress["loss"], dtype=torch.float64, device=device)
    started = time.perf_counter() - progress["seconds"]
    done, hidden = progress["step"], None if rank == 0 else True  # None: where there is no terminal
    bar = tqdm(total=run.steps, initial=done, disable=hidden, unit="step", mininterval=2)
    for step in range(done + 1, run.steps + 1):
        if run.stop_at and history and history[-1].get(metric, -np.inf) >= run.stop_at:
            break  # its checkpoint is there: no score before was as high
        schedule.step_update(step - 1)
        # stochastic depth and dropout depend on nothing but this; the last word keeps the stream apart from the data's
        torch.manual_seed(int(np.random.SeedSequence([run.seed, step, rank, 2]).generate_state(1)[0]))
        parts = [next(batches) for _ in range(run.accumulate)]
        what = f"{run.batch_size} items in {run.accumulate} micro-batch(es) do not fit"
        optimizer.zero_grad()
        with memory_suffices(device, what, _LESS):
            loss_sum += _gradients(accelerator, wrapped, parts, run, dataset.ignore_index, weights)
        if run.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), run.clip_norm)
        optimizer.step()

        last, is_best = step == run.steps, False
        validates = run.validate_every and (step % run.validate_every == 0 or last)
        if step % HISTORY_EVERY == 0 or validates or last:
            mean = loss_sum.item() / (step - (history[-1]["step"] if history else 0))
            if not np.isfinite(mean):
                raise InputError(f"the loss is {mean} at step {step}; a lower lr may help")
            history.append({"step": step, "loss": mean, "lr": optimizer.param_groups[0]["lr"]})
            loss_sum.zero_()
        if validates:
            best = max((row[metric] for row in history if metric in row), default=-np.inf)
            broadcast([*model.buffers()])  # on CPUs each process's batch normalisation has counted its own part
            # images to evaluate have sizes of their own
            with torch.compiler.set_stance("force_eager") if run.compile else nullcontext():
                # undefined (NaN) where nothing is labelled: no better than any other
                history[-1][metric] = np.nan_to_num(task.score(model, validation, run)).item()
            model.train()
            if is_best := history[-1][metric] > best and rank == 0:
                on_best()
        if history and history[-1]["step"] == step:
            bar.set_postfix({name: value for name, value in history[-1].items() if name != "step"})
        if step % run.checkpoint_every == 0 or is_best or last:
            progress.update(step=step, loss=loss_sum.item(), seconds=time.perf_counter() - started)
            if rank == 0:
                save_checkpoint(checkpoint, model, optimizer, progress)
        bar.update()
        if on_step is not None:
            on_step(step)
    bar.close()
    accelerator.wait_for_everyone()  # the checkpoint is written before anyone goes on
    broadcast([*model.buffers()])  # as above
    for module in model.modules():
        module._compiled_call_impl = None  # nothing stays compiled: test images have sizes of their own
    model.eval()
    return history, progress["seconds"]
