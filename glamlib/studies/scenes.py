"""The studies on cue scenes: which blocks, exchanges and decoders carry context between windows."""

from dataclasses import replace

from glamlib.studies.study import Profile, Study, variants_of

_QUICK = Profile(
    data={"size": 64, "train": 128, "test": 32},
    parameters={"steps": 20, "batch_size": 16, "lr": 3e-3, "warmup_steps": 5, "checkpoint_every": 10},
)
# Outlines are most of a scene's loss, and what is asked a small part: with balanced classes training leaves the plateau
# in half as many steps. A run ends once it answers nearly all shapes of the validation scenes.
_TO_CRITERION = {"loss": "balanced", "validate_every": 25, "stop_at": 0.985}
_CPU = Profile(
    seeds=10,  # five at first, which left some claims open: all ten count
    data={"size": 64, "train": 4000, "val": 60, "test": 500},
    parameters={"steps": 600, "batch_size": 16, "lr": 3e-3, "warmup_steps": 50} | _TO_CRITERION,
)
# As many scenes in half as many steps of twice the size. Differences are small: they ask for more seeds, taken oftener.
_CPU_LARGER_BATCHES = replace(
    _CPU, seeds=20, parameters=_CPU.parameters | {"steps": 300, "batch_size": 32, "validate_every": 10}
)
# Deeper networks, and windows of two patches, leave the plateau of guessing later: a larger cue shortens it
_CPU_LARGER_CUE = replace(_CPU, data=_CPU.data | {"cue_size": 12}, parameters=_CPU.parameters | {"steps": 400})

CONTEXT = Study(
    name="context",
    question="Do global tokens that meet in G-MSA let a window know what the rest of the image holds?",
    dataset="scenes",
    baseline="swin",
    # One stage of two blocks: Swin sees about a window and a half, GLAM the image, at equal depth. The linear decoder
    # adds no context of its own, as UPerNet's pooling over the whole map would (the variant swin_upernet).
    overrides={"depths": [2], "num_heads": [2]},
    variants=variants_of("context"),
    profiles={"quick": _QUICK, "cpu": _CPU},
    metric="right_given_found",  # mIoU would mostly compare outlines
)

# The released code's differences from the paper, one a variant (`glamlib.released.DIFFERENCES`). Those without effect
# in this small network (one stage, no UNet, sizes that divide) are left out.
RELEASE = replace(
    CONTEXT,
    name="release",
    question="What does each difference between the paper and its released code do?",
    baseline="paper",
    overrides=CONTEXT.overrides | {"num_global_tokens": 2},
    variants=variants_of("release"),
    profiles={"quick": _QUICK, "cpu": _CPU_LARGER_BATCHES},
)

DECODERS = replace(
    CONTEXT,
    name="decoders",
    question="Which stages need tokens, and what does the decoder add?",
    baseline="swin_unet",
    # Two stages of two blocks; a UNet's decoder has a stage of its own at the high resolution, with tokens where the
    # encoder's stage has them. Windows of two patches (8 and 16 px): with larger ones Swin's second stage would see
    # nearly the whole scene.
    overrides={"depths": [2, 2], "num_heads": [2, 4], "window_size": 2},
    variants=variants_of("decoders"),
    profiles={
        "quick": _QUICK,
        "cpu": _CPU_LARGER_CUE,  # at 48 px Swin-UNet would see nearly every cue
    },
)

MIXERS = replace(
    CONTEXT,
    name="mixers",
    question="What else can carry context between windows, and at what cost?",
    baseline="gmsa",
    # Two tokens a window if the exchange is between tokens; 64 windows a scene: on fewer, pooled keys would be G-MSA
    overrides=CONTEXT.overrides | {"num_global_tokens": 2, "window_size": 2},
    variants=variants_of("mixers"),
    profiles={"quick": _QUICK, "cpu": _CPU_LARGER_CUE},
)


def _exchanges_at(size: int, steps: int) -> Study:
    """Return the part of the study `mixers` that asks what linear exchanges are worth on scenes of another size.

    More windows make the plateau of guessing longer: ``steps`` are the most that a run takes to leave it.
    """
    cpu = replace(_CPU_LARGER_CUE, seeds=3, data=_CPU_LARGER_CUE.data | {"size": size})
    return replace(
        MIXERS,
        name=f"mixers_{size}",
        question=f"What do the linear exchanges give up on scenes of {size} pixels?",
        variants={name: MIXERS.variants[name] for name in ("gmsa", "pooled", "linear")},
        profiles={"cpu": replace(cpu, parameters=cpu.parameters | {"steps": steps})},
    )


MIXERS_48, MIXERS_96 = _exchanges_at(48, steps=400), _exchanges_at(96, steps=700)

_LEGEND = {"steps": 800, "batch_size": 32, "lr": 3e-3, "warmup_steps": 50} | _TO_CRITERION
_LEGEND_DATA = {"size": 48, "num_shapes": 3, "train": 4000, "val": 100, "test": 300}
_LEGEND_QUICK = Profile(
    data={"size": 48, "num_shapes": 3, "train": 64, "val": 16, "test": 16},
    parameters=_LEGEND | {"steps": 10, "batch_size": 8, "warmup_steps": 2, "validate_every": 5, "checkpoint_every": 5},
)
_NUMBERS = ("k2_n1", "k2_n2", "k4_n1", "k4_n4", "k8_n1", "k8_n2", "k8_n4", "k8_n8", "k8_swin", "k8_none", "k8_full")
LEGEND = replace(
    CONTEXT,  # whose windows of 4 patches are the legend's; shapes lie beyond Swin's reach
    name="legend",
    question="When does the number of global tokens matter? All facts of a legend must leave one window.",
    dataset="legend_scenes",
    baseline="k8_n1",
    variants=variants_of("legend"),
    profiles={
        "quick": _LEGEND_QUICK,
        "cpu": Profile(_LEGEND_DATA, _LEGEND, seeds=5),
        # Nearly four times as long, on a GPU if there is one: is it the number, or how soon it is learned?
        "gpu": Profile(
            seeds=5,
            data=_LEGEND_DATA,
            parameters=_LEGEND | {"steps": 3000, "validate_every": 50, "device": "auto"},
            variants=_NUMBERS,
        ),
    },
)
# A grid of 6 by 6 windows, which pooled keys do pool, of 2 by 2 patches: the legend's four cells fill one.
LEGEND_MIXERS = replace(
    LEGEND,
    name="legend_mixers",
    question="Which exchanges carry four facts out of one window, and how soon do they learn it?",
    baseline="gmsa",
    overrides=LEGEND.overrides | {"num_global_tokens": 4, "window_size": 2},
    variants=variants_of("legend_mixers"),
    profiles={
        name: replace(profile, data=profile.data | {"window": 8, "num_keys": 4}, variants=())
        for name, profile in LEGEND.profiles.items()
        if name != "gpu"
    },
)
