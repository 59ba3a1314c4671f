"""The training loop, on accelerate.

What a step sees and draws depends on (seed, step) alone, so a run that is killed and started again goes on from its
checkpoint to bit-identical weights. A step's batch may be split over processes (torchrun, accelerate launch) and over
micro-batches within each (``accumulate``): every part's loss is divided by the valid pixels of the whole batch, so
gradients are those of the whole batch.
"""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from timm.optim import param_groups_weight_decay
from timm.scheduler import PolyLRScheduler
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from glamlib.data.datasets import InMemory, absent_classes
from glamlib.errors import InputError
from glamlib.layers.block import GlamBlock
from glamlib.studies.parameters import RunParameters
from glamlib.training.batches import TrainingView, step_batches
from glamlib.training.checkpoint import changes, load_checkpoint, read_progress, save_checkpoint, set_aside
from glamlib.training.datasets import AnyDataset, data_identity
from glamlib.training.tasks import task_of

HISTORY_EVERY = 10  # steps that one row of the history averages
# Parts of names: custom_keys of the released configurations (themyrl/glam at 44abe55)
_NO_DECAY_RELEASED = ("absolute_pos_embed", "relative_position_bias_table", "norm")


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto"; InputError where CUDA is asked for and absent."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda': this machine has no CUDA device that torch can use; allowed here: cpu, auto")
    return device


def use_threads(count: int) -> None:
    """Let torch use ``count`` CPU threads; InputError for more than there are cores: torch may crash starting them."""
    if count > os.cpu_count():
        raise InputError(f"parameter threads={count}: this machine has {os.cpu_count()} cores")
    torch.set_num_threads(count)


def compile_blocks(model: nn.Module) -> None:
    """Compile every `GlamBlock` of ``model`` for each size it meets; without a compiler it runs as it is.

    Weights keep their names.
    """
    torch._dynamo.config.suppress_errors = True
    # blocks differ in size, shift and tokens, and each kind is compiled for itself; torch gives up at 8
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for module in model.modules():
        if isinstance(module, GlamBlock):
            module.compile(dynamic=False)


def parameter_groups(model: nn.Module, weight_decay: float, decay: str = "matrices") -> list[dict[str, object]]:
    """Return AdamW's groups: parameters without weight decay, and with it.

    With ``decay`` "matrices", no decay on norms and biases, position bias tables and global tokens; with "released", as
    in the released configurations, only on position bias tables and on what is called a norm: biases, tokens and batch
    normalisation decay.
    """
    if decay == "matrices":
        tables_and_tokens = ("*relative_position_bias_table", "*global_tokens")
        return param_groups_weight_decay(model, weight_decay, no_weight_decay_list=tables_and_tokens)
    groups = [{"params": [], "weight_decay": 0.0}, {"params": [], "weight_decay": weight_decay}]
    for name, parameter in model.named_parameters():
        groups[not any(part in name for part in _NO_DECAY_RELEASED)]["params"].append(parameter)
    return groups


def train(
    model: nn.Module,
    dataset: AnyDataset,
    run: RunParameters,
    checkpoint: Path,
    *,
    code: str = "",
    on_step: Callable[[int], object] | None = None,
) -> tuple[list[dict[str, float]], float]:
    """Train ``model`` in place, from ``checkpoint`` on if there is one that the same parameters, data and code made.

    Process 0 of a launcher writes the checkpoint, which all must be able to read. Resuming is exact for the same number
    of processes; for another it goes on with the same data in the same order. A checkpoint of another run is kept under
    another name. ``code`` is a digest of the code that decides what is computed.

    Returns the history, a row (step, loss, lr) every `HISTORY_EVERY` steps and at the end, and the seconds of training.
    Raises InputError for no such device, a batch that cannot be split, an unusable checkpoint or image, and
    FloatingPointError if the loss is no longer finite.
    """
    accelerator = Accelerator(
        cpu=resolve_device(run.device) == "cpu",
        mixed_precision="no",  # whatever a launcher says: autocast below knows the run's precision
        # the released networks have weights that nothing reads
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    use_threads(run.threads)
    device, processes, rank = accelerator.device, accelerator.num_processes, accelerator.process_index
    on_gpu = device.type == "cuda"

    model.to(device)
    if on_gpu and dataset[0][0].ndim == 3:  # a GPU's 2D convolutions are faster on channels-last maps
        model.to(memory_format=torch.channels_last)
    if on_gpu and processes > 1:  # torch has no such layer for the CPU, where each process normalises its own part
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, run.weight_decay, run.decay), lr=run.lr, fused=on_gpu)
    schedule = PolyLRScheduler(
        optimizer,
        t_initial=run.steps,
        power=1.0,
        warmup_t=run.warmup_steps,
        warmup_lr_init=run.lr * 1e-6,
        t_in_epochs=False,
    )

    made_by = run.to_dict() | {"data contents": data_identity(dataset), "code": code}
    progress = {"step": 0, "history": [], "loss": 0.0, "seconds": 0.0}
    held = read_progress(checkpoint) if checkpoint.exists() else progress
    if accelerator.gather(torch.tensor([held["step"]], device=device)).unique().numel() > 1:
        raise InputError(f"{checkpoint}: not the same in all processes; all machines must share its file system")
    if held["step"]:
        decisive, rounding = changes(held["made_by"], made_by)
        if not decisive:
            progress = load_checkpoint(checkpoint, model, optimizer)
            if rounding:
                accelerator.print(f"{', '.join(rounding)}: going on from step {held['step']}; last digits may change")
        elif rank == 0:
            print(f"{', '.join(decisive)}: starting again; the old checkpoint is kept as {set_aside(checkpoint).name}")
    progress["made_by"] = made_by
    if rank == 0 and isinstance(dataset, InMemory) and (absent := absent_classes(dataset)):
        print(f"warning: no training label holds {', '.join(absent)}")

    task = task_of(run)
    batches = iter(
        DataLoader(
            TrainingView(dataset, run.seed, task.transform(dataset, run)),
            batch_sampler=step_batches(run, progress["step"], rank, processes),
            num_workers=run.workers,
            pin_memory=on_gpu,
            generator=torch.Generator(),  # else the loader would draw from the model's random state
        )
    )
    wrapped = accelerator.prepare(model)
    wrapped.train()
    if run.compile:
        compile_blocks(model)

    loss_sum = torch.tensor(progress["loss"], dtype=torch.float64, device=device)
    started = time.perf_counter() - progress["seconds"]
    bar = tqdm(
        total=run.steps, initial=progress["step"], disable=None if rank == 0 else True, unit="step", mininterval=2
    )
    for step in range(progress["step"] + 1, run.steps + 1):
        schedule.step_update(step - 1)
        # stochastic depth and dropout depend on nothing but this; the last word keeps the stream apart from the data's
        torch.manual_seed(int(np.random.SeedSequence([run.seed, step, rank, 2]).generate_state(1)[0]))
        parts = [next(batches) for _ in range(run.accumulate)]
        # gradients are averaged over processes, so each divides its sum of losses by the mean count of valid pixels
        count = sum((labels != dataset.ignore_index).sum() for _, labels in parts)
        count = accelerator.reduce(count.to(device), "sum").clamp(min=1) / processes
        optimizer.zero_grad()
        step_loss = torch.zeros((), dtype=torch.float64, device=device)
        for number, (images, labels) in enumerate(parts, start=1):
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            # processes exchange gradients once a step
            with nullcontext() if number == run.accumulate else accelerator.no_sync(wrapped):
                with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"):
                    outputs = wrapped(task.prepare(images), auxiliary=True)
                loss = task.loss(outputs, labels, dataset.ignore_index, count)
                loss.backward()
            step_loss += loss.detach()
        if run.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), run.clip_norm)
        optimizer.step()

        loss_sum += accelerator.reduce(step_loss, "mean")  # stays on the device: a GPU need not wait for every step
        last = step == run.steps
        if step % HISTORY_EVERY == 0 or last:
            mean = loss_sum.item() / ((step - 1) % HISTORY_EVERY + 1)
            if not np.isfinite(mean):
                raise FloatingPointError(f"the loss is {mean} at step {step}; a lower lr may help")
            progress["history"].append({"step": step, "loss": mean, "lr": optimizer.param_groups[0]["lr"]})
            loss_sum.zero_()
        if step % run.checkpoint_every == 0 or last:
            progress.update(step=step, loss=loss_sum.item(), seconds=time.perf_counter() - started)
            if rank == 0:
                save_checkpoint(checkpoint, model, optimizer, progress)
        bar.update()
        if on_step is not None:
            on_step(step)
    bar.close()
    accelerator.wait_for_everyone()  # the checkpoint is written before anyone goes on
    for module in model.modules():
        module._compiled_call_impl = None  # nothing stays compiled: test images have sizes of their own
    model.eval()
    return progress["history"], progress["seconds"]
