"""What the speed benchmark compares: groups (part of the network, pass, image size) and their contenders."""

from dataclasses import dataclass

from torch import nn

from glamlib.errors import InputError
from glamlib.models.zoo import create_model

PARTS = {"encoder": "linear", "model": "upernet"}  # and the decoder of the model that the part is taken from
PASSES = ("forward", "training")
CLASSES = 19
WAYS = ("fused", "torch", "explicit", "compiled", "bf16", "compiled_bf16", "channels_last", "checkpointing")


@dataclass(frozen=True)
class Group:
    """What is timed: "encoder" or "model", "forward" or "training" (forward and backward), side of the image in pixels,
    images in a batch.
    """

    part: str
    direction: str
    size: int
    batch: int = 1

    @classmethod
    def parse(cls, name: str) -> "Group":
        """Return the group of a name: encoder-training-512, or encoder-training-512-8 for a batch of 8.

        Raises:
            InputError: the name is none of a group.
        """
        part, direction, *numbers = name.split("-") if name.count("-") in (2, 3) else ("", "", "")
        known = part in PARTS and direction in PASSES and all(n.isascii() and n.isdecimal() for n in numbers)
        if not known or not 32 <= int(numbers[0]) <= 4096 or not all(1 <= int(n) <= 1024 for n in numbers[1:]):
            raise InputError(
                f"{name!r}: must be encoder or model, forward or training, 32 to 4096 pixels, and perhaps the images "
                "in a batch: encoder-forward-512 or encoder-forward-512-8"
            )
        return cls(part, direction, *map(int, numbers))

    @property
    def name(self) -> str:
        return "-".join(map(str, (self.part, self.direction, self.size, *([self.batch] if self.batch > 1 else []))))


@dataclass(frozen=True)
class Contender:
    """One network ("tiny" or "base"), computed in one of `WAYS`; 0 tokens is Swin.

    ``behaviour`` and ``mixer`` are a model's overrides.
    """

    tokens: int
    way: str = "fused"
    mixer: str = "gmsa"
    behaviour: str = "paper"
    network: str = "tiny"

    def build(self, group: Group, embed_dim: int | None = None) -> nn.Module:
        """Return the part of the network, ready for its pass; ``embed_dim`` overrides the channels of its first stage.

        It takes images ``(B, 3, H, W)``, and gives a pyramid (a list of maps, channels first) or logits.
        """
        overrides: dict[str, object] = {"behaviour": self.behaviour}
        overrides["grad_checkpointing"] = self.way == "checkpointing"
        if embed_dim is not None:
            overrides["embed_dim"] = embed_dim
        if self.tokens:
            overrides |= {"num_global_tokens": self.tokens, "mixer": self.mixer}
        name = f"{'glam_swin' if self.tokens else 'swin'}_{self.network}_{PARTS[group.part]}"
        model = create_model(name, num_classes=CLASSES, **overrides)
        part = model.encoder if group.part == "encoder" else model
        part.in_channels = model.in_channels
        part.train(group.direction == "training")
        if group.part == "model" and group.batch == 1:
            part.decoder.eval()  # a BatchNorm of UPerNet's cannot learn from one value a channel; it takes as long
        return part


# The largest image side at which a CPU times what is not Swin-T and GLAM-Swin-T with 10 tokens, fused: above it a round
# takes minutes.
_PATIENCE = {
    "1 or 5 tokens": 1024,
    "no_token_mlp": 1024,
    "linear": 512,
    "base": 512,
    "explicit": 512,
    "bf16": 512,
    "checkpointing": 512,
    "ways of the model": 256,
}
# Compiling takes a CPU two minutes a network, whatever the size: one size of forward passes tells.
_COMPILED_SIZE = 512
# On smaller images no sequence is long enough for a kernel of ours, and "torch" is what "fused" is.
_LONG_SIZE = 512


def contenders(group: Group, device: str, bf16_pays: bool = True) -> list[Contender]:
    """Return what a group compares, Swin first; fewer where a round would take a CPU minutes.

    Args:
        group: see `Group`.
        device: "cpu" or "cuda".
        bf16_pays: whether the machine multiplies matrices of bf16 faster than of fp32.
    """
    on_gpu, encoder, trains = device.startswith("cuda"), group.part == "encoder", group.direction == "training"

    def patient(what: str) -> bool:
        return on_gpu or group.size <= _PATIENCE[what]

    listed = [Contender(0), Contender(10)]
    if encoder:
        listed += [Contender(10, mixer=mixer) for mixer in ("pooled", "linear") if mixer == "pooled" or patient(mixer)]
        if patient("1 or 5 tokens"):
            listed += [Contender(1), Contender(5)]
        if trains and patient("no_token_mlp"):
            # the released code's tokens skip the MLP, and the ratios published of it count none
            listed.append(Contender(10, behaviour="no_token_mlp"))
        if patient("base"):
            listed += [Contender(number, network="base") for number in (0, 10)]
    patient_part = encoder or patient("ways of the model")
    ways = {
        "torch": encoder and not on_gpu and _LONG_SIZE <= group.size <= 1024,
        "explicit": encoder and patient("explicit"),
        "compiled": on_gpu or (encoder and not trains and group.size == _COMPILED_SIZE),
        "bf16": patient_part and patient("bf16") and bf16_pays,
        "compiled_bf16": on_gpu and bf16_pays,
        "channels_last": not encoder and patient_part,
        "checkpointing": trains and patient_part and patient("checkpointing"),
    }
    return listed + [Contender(number, way) for way, taken in ways.items() if taken for number in (0, 10)]
