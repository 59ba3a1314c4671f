"""The studies on cue scenes: which blocks, exchanges and decoders carry context between windows."""

from glamlib.studies.study import Profile, Study, Variant

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
            "batch_size": 16,
            "lr": 3e-3,
            "warmup_steps": 50,
        },
    ),
    # Swin-T's width and window: 5 x 5 windows, and the cue anywhere
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
            "workers": 8,
            "checkpoint_every": 1000,
        },
        {"embed_dim": 96, "window_size": 7},
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

# As many scenes in half as many steps of twice the size.
_LARGER_BATCHES = _SCENES | {"cpu": Profile(3, _SCENES["cpu"].run | {"steps": 300, "batch_size": 32})}

_ONE_STAGE = "glam_swin_nano_linear"

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
    variants={"paper": Variant("The paper's block", _ONE_STAGE)}
    | {
        name: Variant(
            "All differences" if name == "released" else name.replace("_", " "),
            _ONE_STAGE,
            {"behaviour": name},
        )
        for name in _RELEASED
    },
    profiles=_LARGER_BATCHES,
)

# Deeper networks, and windows of two patches, leave the plateau of guessing later: a larger cue shortens it.
_LARGER_CUE = _SCENES | {
    "cpu": Profile(
        3,
        _SCENES["cpu"].run | {"data": {"size": 64, "cue_size": 12, "train": 4000, "test": 500}, "steps": 400},
    )
}

# A UNet has twice the blocks: scenes of fewer windows make the plateau shorter and the steps cheaper.
_SMALLER_SCENES = _LARGER_CUE | {
    "cpu": Profile(3, _LARGER_CUE["cpu"].run | {"data": {"size": 48, "cue_size": 12, "train": 4000, "test": 500}}),
    "gpu": Profile(3, _SCENES["gpu"].run, {"embed_dim": 96}),
}

DECODERS = Study(
    name="decoders",
    question="Which stages need tokens, and what does the decoder add?",
    dataset="scenes",
    baseline="swin_unet",
    # Two stages of two blocks; a UNet's decoder has a stage of its own at the high resolution, with tokens where the
    # encoder's stage has them. Windows of two patches (8 and 16 px): with larger ones Swin's second stage would see
    # nearly the whole scene.
    overrides={"depths": [2, 2], "num_heads": [2, 4], "window_size": 2},
    variants={
        "swin_unet": Variant("Swin-UNet", "swin_nano_unet"),
        "glam_unet": Variant("GLAM-UNet, tokens everywhere", "glam_swin_nano_unet", {"num_global_tokens": 2}),
        "glam_unet_high": Variant("tokens at 1/4 only", "glam_swin_nano_unet", {"num_global_tokens": [2, 0]}),
        "glam_unet_low": Variant("tokens at 1/8 only", "glam_swin_nano_unet", {"num_global_tokens": [0, 2]}),
        "glam_unet_nlu": Variant("GLAM-UNet + NLU", "glam_swin_nano_unet_nlu", {"num_global_tokens": 2}),
        "swin_upernet": Variant("Swin-UPerNet", "swin_nano_upernet", {"decoder_channels": 32}),
        "glam_upernet": Variant(
            "GLAM-UPerNet", "glam_swin_nano_upernet", {"num_global_tokens": 2, "decoder_channels": 32}
        ),
    },
    profiles=_SMALLER_SCENES,
)

MIXERS = Study(
    name="mixers",
    question="What else can carry context between windows, and at what cost?",
    dataset="scenes",
    baseline="gmsa",
    # The block and the network of the study `context`, with two tokens a window where the exchange is between tokens,
    # and windows of two patches, 64 a scene: pooled keys would be G-MSA's own on fewer.
    overrides={"depths": [2], "num_heads": [2], "num_global_tokens": 2, "window_size": 2},
    variants={
        "gmsa": Variant("G-MSA (GLAM)", _ONE_STAGE),
        "none": Variant("tokens alone", _ONE_STAGE, {"mixer": "none"}),
        "pooled": Variant("pooled keys", _ONE_STAGE, {"mixer": "pooled"}),
        "low_rank": Variant("low rank (Linformer)", _ONE_STAGE, {"mixer": "low_rank"}),
        "linear": Variant("linear attention", _ONE_STAGE, {"mixer": "linear"}),
        "performer": Variant("random features (Performer)", _ONE_STAGE, {"mixer": "performer"}),
        "memory": Variant("memory tokens", _ONE_STAGE, {"mixer": "memory"}),
        "shared": Variant("one shared set of tokens (ViL)", _ONE_STAGE, {"mixer": "shared", "num_global_tokens": 0}),
        "reduced": Variant("reduced keys (PVT)", _ONE_STAGE, {"mixer": "reduced", "num_global_tokens": 0}),
        "sparse": Variant("dilated windows", _ONE_STAGE, {"mixer": "sparse", "num_global_tokens": 0}),
        "full": Variant("full attention", _ONE_STAGE, {"mixer": "full", "num_global_tokens": 0}),
    },
    profiles=_LARGER_CUE,
)


def _exchanges_at(size: int, steps: int) -> Study:
    """Return what the linear exchanges are worth on scenes of another size: the study `mixers`, a part of it.

    What takes more steps to leave the plateau of guessing on more windows gets them, and so do its neighbours; the
    training loss, not the test's score, says how many.
    """
    cpu = _LARGER_CUE["cpu"].run
    return Study(
        name=f"mixers_{size}",
        question=f"What do the linear exchanges give up on scenes of {size} pixels?",
        dataset="scenes",
        baseline="gmsa",
        overrides=MIXERS.overrides,
        variants={name: MIXERS.variants[name] for name in ("gmsa", "pooled", "linear")},
        profiles={"cpu": Profile(3, cpu | {"steps": steps, "data": cpu["data"] | {"size": size}})},
    )


MIXERS_48, MIXERS_96 = _exchanges_at(48, steps=400), _exchanges_at(96, steps=700)
