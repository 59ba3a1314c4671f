"""The studies: what is compared with what, on which data, at which size. This table is the only place that says so.

A study is a set of variants that differ from each other in the model alone; a profile is the size at which all of them
run: it changes sizes, steps and seeds, never code paths. Nothing here needs torch, so planning is quick.
"""

from dataclasses import dataclass, field

from glamlib.errors import InputError, one_of

from .parameters import RunParameters

PROFILES = ("quick", "cpu", "gpu", "paper")


@dataclass(frozen=True)
class Variant:
    """One row of a study's table: a label for readers, a model's name, and what is overridden in it.

    ``whole_map_window`` makes one window of the whole map: full attention, at the profile's image size.
    """

    label: str
    model: str
    overrides: dict = field(default_factory=dict)
    whole_map_window: bool = False


@dataclass(frozen=True)
class Profile:
    """A study's size: how many seeds, and the parameters of `RunParameters` that go with it."""

    seeds: int
    run: dict


@dataclass(frozen=True)
class Study:
    """A question, the variants that answer it, and the sizes it can be asked at.

    ``baseline`` is the variant that the others are compared with.
    """

    name: str
    question: str
    dataset: str
    baseline: str
    overrides: dict
    variants: dict[str, Variant]
    profiles: dict[str, Profile]

    def run(self, variant: str, seed: int, profile: str) -> RunParameters:
        """Return the parameters of one run; InputError for an unknown variant or a profile this study has not."""
        if variant not in self.variants:
            raise one_of(f"variant of study {self.name}:", variant, self.variants)
        if profile not in self.profiles:
            raise one_of(f"profile of study {self.name}:", profile, self.profiles)
        chosen = self.variants[variant]
        sizes = self.profiles[profile].run
        overrides = self.overrides | chosen.overrides
        if chosen.whole_map_window:
            overrides["window_size"] = sizes["data"]["size"] // 4  # pixels to patches
        return RunParameters.from_dict(
            {
                "study": self.name,
                "variant": variant,
                "seed": seed,
                "profile": profile,
                "model": chosen.model,
                "overrides": overrides,
                "dataset": self.dataset,
                **sizes,
            }
        )

    def runs(self, profile: str, seeds: int | None = None) -> list[RunParameters]:
        """Return all runs of a profile, seed by seed, so that a cut-off study has whole sets of variants.

        Raises:
            InputError: this study has no such profile.
        """
        if profile not in self.profiles:
            raise one_of(f"profile of study {self.name}:", profile, self.profiles)
        count = seeds or self.profiles[profile].seeds
        return [self.run(variant, seed, profile) for seed in range(count) for variant in self.variants]


# Cue scenes at each size.
_SCENES = {
    "quick": Profile(
        1,
        {
            "data": {"size": 64, "train": 128, "test": 32},
            "steps": 20,
            "batch_size": 16,
            "lr": 3e-3,
            "warmup_steps": 5,
            "checkpoint_every": 10,
        },
    ),
    "cpu": Profile(
        3,
        {
            "data": {"size": 64, "train": 4000, "test": 500},
            "steps": 600,
            "batch_size": 32,
            "lr": 3e-3,
            "warmup_steps": 50,
        },
    ),
    "gpu": Profile(
        5,
        {
            "data": {"size": 128, "num_shapes": 8, "cue_size": 12, "train": 20000, "test": 1000},
            "steps": 3000,
            "batch_size": 128,
            "lr": 3e-3,
            "warmup_steps": 150,
            "precision": "bf16",
            "device": "cuda",
        },
    ),
}

CONTEXT = Study(
    name="context",
    question="Do global tokens that meet in G-MSA let a window know what the rest of the image holds?",
    dataset="scenes",
    baseline="swin",
    # One stage of two blocks: Swin sees about a window and a half, GLAM the image, at equal depth. The linear decoder
    # adds no context of its own, as UPerNet's pooling over the whole map would (the variant swin_upernet).
    overrides={"depths": [2], "num_heads": [2]},
    variants={
        "swin": Variant("Swin", "swin_nano_linear"),
        "tokens_2": Variant("2 tokens, no G-MSA", "glam_swin_nano_linear", {"num_global_tokens": 2, "mixer": "none"}),
        "glam_1": Variant("GLAM, 1 token", "glam_swin_nano_linear", {"num_global_tokens": 1}),
        "glam_2": Variant("GLAM, 2 tokens", "glam_swin_nano_linear", {"num_global_tokens": 2}),
        "glam_5": Variant("GLAM, 5 tokens", "glam_swin_nano_linear", {"num_global_tokens": 5}),
        "glam_10": Variant("GLAM, 10 tokens", "glam_swin_nano_linear", {"num_global_tokens": 10}),
        "full": Variant("Full attention", "swin_nano_linear", whole_map_window=True),
        "swin_upernet": Variant("Swin + UPerNet", "swin_nano_upernet", {"decoder_channels": 32}),
    },
    profiles=_SCENES,
)

# GLAM leaves the plateau of guessing after some 200 steps: half as many as above tell the differences apart.
_FEWER_STEPS = _SCENES | {"cpu": Profile(3, _SCENES["cpu"].run | {"steps": 300})}

# What the released code does otherwise than the paper, one difference a variant (see `glamlib.released.DIFFERENCES`);
# those that have no effect in this small network (one stage, no UNet, sizes that divide) are left out.
_RELEASED = (
    *("raw_tokens", "no_token_residual", "no_token_mlp", "bare_gmsa", "position_table", "random_tokens"),
    "released",
)

RELEASE = Study(
    name="release",
    question="What does each difference between the paper and its released code do?",
    dataset="scenes",
    baseline="paper",
    overrides={"depths": [2], "num_heads": [2], "num_global_tokens": 2},
    variants={"paper": Variant("The paper's block", "glam_swin_nano_linear")}
    | {
        name: Variant(
            "All differences" if name == "released" else name.replace("_", " "),
            "glam_swin_nano_linear",
            {"behaviour": name},
        )
        for name in _RELEASED
    },
    profiles=_FEWER_STEPS,
)

DECODERS = Study(
    name="decoders",
    question="Which stages need tokens, and what does the decoder add?",
    dataset="scenes",
    baseline="swin_unet",
    # Two stages of two blocks; a UNet's decoder has a stage of its own at the high resolution, with tokens where the
    # encoder's stage has them.
    overrides={"depths": [2, 2], "num_heads": [2, 4]},
    variants={
        "swin_unet": Variant("Swin-UNet", "swin_nano_unet"),
        "glam_unet": Variant("GLAM-UNet, tokens everywhere", "glam_swin_nano_unet", {"num_global_tokens": 2}),
        "glam_unet_high": Variant("tokens at 1/4 only", "glam_swin_nano_unet", {"num_global_tokens": [2, 0]}),
        "glam_unet_low": Variant("tokens at 1/8 only", "glam_swin_nano_unet", {"num_global_tokens": [0, 2]}),
        "glam_unet_nlu": Variant("GLAM-UNet + NLU", "glam_swin_nano_unet_nlu", {"num_global_tokens": 2}),
        "glam_upernet": Variant(
            "GLAM-UPerNet", "glam_swin_nano_upernet", {"num_global_tokens": 2, "decoder_channels": 32}
        ),
    },
    # At the cpu profile these networks stay at the edge of the plateau for longer than its minutes allow.
    profiles={name: _SCENES[name] for name in ("quick", "gpu")},
)

_STREETS = {
    "quick": Profile(
        1,
        {
            "data": {"train": "train", "test": "test", "size": [72, 96], "limit": 24},
            "augment": {"crop_size": [64, 96]},
            "steps": 10,
            "batch_size": 4,
            "lr": 1e-3,
            "warmup_steps": 2,
            "checkpoint_every": 5,
        },
    ),
    "cpu": Profile(
        3,
        {
            "data": {"train": "train", "test": "test", "size": [120, 160]},
            # lr and the mild augmentation were chosen for Swin on the validation images, and serve all variants
            "augment": {"crop_size": [96, 128], "scale_range": [0.75, 1.5], "jitter": False},
            "steps": 600,
            "batch_size": 8,
            "lr": 3e-3,
            "warmup_steps": 50,
        },
    ),
    "gpu": Profile(
        3,
        {
            "data": {"train": "trainval", "test": "test", "size": [360, 480]},
            "augment": {"crop_size": [320, 448]},
            "steps": 6000,
            "batch_size": 16,
            "lr": 1e-3,
            "warmup_steps": 300,
            "precision": "bf16",
            "device": "cuda",
            "workers": 8,
        },
    ),
}

CAMVID = Study(
    name="camvid",
    question="Does GLAM segment real street scenes better than Swin?",
    dataset="camvid",
    baseline="swin",
    overrides={"decoder_channels": 32},
    variants={
        "swin": Variant("Swin", "swin_nano_upernet"),
        "glam_1": Variant("GLAM, 1 token", "glam_swin_nano_upernet", {"num_global_tokens": 1}),
        "glam_10": Variant("GLAM, 10 tokens", "glam_swin_nano_upernet", {"num_global_tokens": 10}),
    },
    profiles=_STREETS,
)

CAMVID_UNET = Study(
    name="camvid_unet",
    question="Does non-local upsampling help a UNet on real street scenes?",
    dataset="camvid",
    baseline="glam_unet",
    overrides={},
    variants={
        "swin_unet": Variant("Swin-UNet", "swin_nano_unet"),
        "glam_unet": Variant("GLAM-UNet, 10 tokens", "glam_swin_nano_unet", {"num_global_tokens": 10}),
        "glam_unet_nlu": Variant("GLAM-UNet + NLU", "glam_swin_nano_unet_nlu", {"num_global_tokens": 10}),
    },
    profiles={name: _STREETS[name] for name in ("quick", "gpu")},
)

STUDIES: dict[str, Study] = {study.name: study for study in (CONTEXT, RELEASE, CAMVID, DECODERS, CAMVID_UNET)}


def find_study(name: str) -> Study:
    """Return a study by name; InputError that lists the studies otherwise."""
    if name not in STUDIES:
        raise one_of("study", name, STUDIES)
    return STUDIES[name]


def check_profile(name: str) -> str:
    """Return a profile's name if some study has that size; InputError otherwise."""
    if name not in PROFILES:
        raise one_of("profile", name, PROFILES)
    if not any(name in study.profiles for study in STUDIES.values()):
        raise InputError(f"profile {name!r}: no study has this size yet")
    return name
