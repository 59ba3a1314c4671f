"""The studies: what is compared with what, on which data, at which size. This table is the only place that says so.

A study is a set of variants that differ from each other in the model alone; a profile is the size at which all of them
run: it changes sizes, steps and seeds, never code paths. Nothing here needs torch, so planning is quick.
"""

from glamlib.errors import one_of

from .recipe import ADE20K, CITYSCAPES
from .study import Profile, Study, Variant

PROFILES = ("quick", "cpu", "gpu", "paper")

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

# GLAM leaves the plateau of guessing after some 200 steps: half as many as above tell the differences apart.
_FEWER_STEPS = _SCENES | {"cpu": Profile(3, _SCENES["cpu"].run | {"steps": 300})}

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
    profiles=_FEWER_STEPS,
)

# Deeper networks, and windows of two patches, leave the plateau of guessing later: a larger cue, and more steps of
# fewer scenes, shorten it.
_LARGER_CUE = _SCENES | {
    "cpu": Profile(
        3,
        _SCENES["cpu"].run
        | {"data": {"size": 64, "cue_size": 12, "train": 4000, "test": 500}, "steps": 400, "batch_size": 16},
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


def _exchanges_at(size: int) -> Study:
    """Return what the linear exchanges are worth on scenes of another size: the study `mixers`, a part of it.

    One schedule for all sizes: what takes more steps to learn on more windows shows as such.
    """
    cpu = _LARGER_CUE["cpu"].run
    return Study(
        name=f"mixers_{size}",
        question=f"What do the linear exchanges give up on scenes of {size} pixels?",
        dataset="scenes",
        baseline="gmsa",
        overrides=MIXERS.overrides,
        variants={name: MIXERS.variants[name] for name in ("gmsa", "pooled", "linear")},
        profiles={"cpu": Profile(3, cpu | {"data": cpu["data"] | {"size": size}})},
    )


MIXERS_48, MIXERS_96 = _exchanges_at(48), _exchanges_at(96)

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
            # lr, batch and the mild augmentation were chosen for Swin on the validation images, and serve all variants
            "augment": {"crop_size": [96, 128], "scale_range": [0.75, 1.5], "jitter": False},
            "steps": 200,
            "batch_size": 4,
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
    question="Does GLAM segment real street scenes better than Swin, under either decoder, and than its neighbours?",
    dataset="camvid",
    baseline="swin",
    overrides={"decoder_channels": 32},
    variants={
        "swin": Variant("Swin", "swin_nano_upernet"),
        "glam_1": Variant("GLAM, 1 token", "glam_swin_nano_upernet", {"num_global_tokens": 1}),
        "glam_10": Variant("GLAM, 10 tokens", "glam_swin_nano_upernet", {"num_global_tokens": 10}),
        "glam_10_high": Variant(
            "10 tokens at 1/4 and 1/8 only", "glam_swin_nano_upernet", {"num_global_tokens": [10, 10, 0, 0]}
        ),
        "swin_unet": Variant("Swin-UNet", "swin_nano_unet"),
        "glam_unet": Variant("GLAM-UNet, 10 tokens", "glam_swin_nano_unet", {"num_global_tokens": 10}),
        "glam_unet_nlu": Variant("GLAM-UNet + NLU", "glam_swin_nano_unet_nlu", {"num_global_tokens": 10}),
        "pvt_v2": Variant("PVT v2", "pvt_v2_nano_upernet"),
        "twins_svt": Variant("Twins-SVT", "twins_svt_nano_upernet"),
        "vit": Variant("ViT (full attention)", "vit_nano_upernet"),
    },
    profiles=_STREETS,
)

_TINY_STREETS = {
    "gpu": Profile(
        3,
        _STREETS["gpu"].run | {"steps": 3000, "compile": True, "workers": 12, "checkpoint_every": 1000},
    )
}

CAMVID_TINY = Study(
    name="camvid_tiny",
    question="Is the paper's Tiny size better with global tokens on street scenes at full resolution?",
    dataset="camvid",
    baseline="swin",
    overrides={"drop_path": 0.1},
    variants={
        "swin": Variant("Swin-T + UPerNet", "swin_tiny_upernet"),
        "glam_1": Variant("GLAM-Swin-T, 1 token", "glam_swin_tiny_upernet", {"num_global_tokens": 1}),
        "glam_5": Variant("GLAM-Swin-T, 5 tokens", "glam_swin_tiny_upernet", {"num_global_tokens": 5}),
        "glam_10": Variant("GLAM-Swin-T, 10 tokens", "glam_swin_tiny_upernet", {"num_global_tokens": 10}),
        "swin_unet": Variant("Swin-T UNet", "swin_tiny_unet"),
        "glam_unet": Variant("GLAM-Swin-T UNet, 10 tokens", "glam_swin_tiny_unet", {"num_global_tokens": 10}),
        "glam_unet_nlu": Variant("GLAM-Swin-T UNet + NLU", "glam_swin_tiny_unet_nlu", {"num_global_tokens": 10}),
    },
    profiles=_TINY_STREETS,
)

CAMVID_IMAGENET = Study(
    name="camvid_imagenet",
    question="Is it better on street scenes from ImageNet weights, as the paper starts?",
    dataset="camvid",
    baseline="swin",
    overrides=CAMVID_TINY.overrides,
    variants=CAMVID_TINY.variants,
    profiles={"gpu": Profile(3, _TINY_STREETS["gpu"].run | {"pretrained": "imagenet", "lr": 3e-4})},
    needs_weights=True,
)

NEIGHBOURS = Study(
    name="neighbours",
    question="How does GLAM stand among multi-resolution transformers of its size?",
    dataset="camvid",
    baseline="swin",
    overrides={"drop_path": 0.1},
    variants={
        "swin": Variant("Swin-T", "swin_tiny_upernet"),
        "glam_10": Variant("GLAM-Swin-T, 10 tokens", "glam_swin_tiny_upernet", {"num_global_tokens": 10}),
        "pvt": Variant("PVT-Small", "pvt_small_upernet"),
        "pvt_v2": Variant("PVT v2 B2", "pvt_v2_b2_upernet"),
        "twins_pcpvt": Variant("Twins-PCPVT-S", "twins_pcpvt_small_upernet"),
        "twins_svt": Variant("Twins-SVT-S", "twins_svt_small_upernet"),
        "t2t_vit": Variant("T2T-ViT-14", "t2t_vit_14_upernet"),
        "tnt": Variant("TNT-S", "tnt_s_upernet"),
        "crossvit": Variant("CrossViT-S", "crossvit_small_upernet"),
        "cvt": Variant("CvT-13", "cvt_13_upernet"),
        "vil": Variant("ViL-Small", "vil_small_upernet"),
        "vit": Variant("ViT-S (full attention)", "vit_small_upernet"),
    },
    profiles={"gpu": Profile(3, _STREETS["gpu"].run | {"steps": 3000})},
)

_VOLUME_VARIANTS = {
    "nnformer": Variant("nnFormer", "nnformer_nano"),
    "glam_1": Variant("GLAM-nnFormer, 1 token", "glam_nnformer_nano", {"num_global_tokens": 1}),
    "glam_5": Variant("GLAM-nnFormer, 5 tokens", "glam_nnformer_nano", {"num_global_tokens": 5}),
    "glam_10": Variant("GLAM-nnFormer, 10 tokens", "glam_nnformer_nano", {"num_global_tokens": 10}),
}

VOLUMES_CUES = Study(
    name="volumes_cues",
    question="Does GLAM help on volumes larger than a window?",
    dataset="cue_volumes",
    baseline="nnformer",
    # One stage of two blocks, as in the study `context`: windows of 8 voxels, three along each axis at the cpu profile.
    overrides={"depths": [2], "num_heads": [2], "embed_dim": 32, "patch_size": 4, "window_size": 2},
    variants=_VOLUME_VARIANTS,
    profiles={
        "quick": Profile(
            1,
            {
                "data": {"size": 32, "train": 32, "test": 8},
                "steps": 10,
                "batch_size": 4,
                "lr": 3e-3,
                "warmup_steps": 2,
                "checkpoint_every": 5,
            },
        ),
        "cpu": Profile(
            3,
            {
                "data": {"size": 24, "cue_size": 8, "num_shapes": 3, "train": 2000, "test": 200},
                "steps": 400,
                "batch_size": 16,
                "lr": 3e-3,
                "warmup_steps": 50,
            },
        ),
        "gpu": Profile(
            3,
            {
                "data": {"size": 64, "num_shapes": 8, "train": 4000, "test": 400},
                "steps": 4000,
                "batch_size": 32,
                "lr": 1e-3,
                "warmup_steps": 200,
                "precision": "bf16",
                "device": "cuda",
            },
        ),
    },
)

VOLUMES_HIPPOCAMPUS = Study(
    name="volumes_hippocampus",
    question="Does GLAM help on small volumes, hardly larger than the window of nnFormer's last stage?",
    dataset="hippocampus",
    baseline="nnformer",
    overrides={},
    variants=_VOLUME_VARIANTS,
    profiles={
        "quick": Profile(
            1,
            {
                "data": {"train": "train", "test": "val", "limit": 4},
                "augment": {"patch_size": [32, 32, 32]},
                "steps": 4,
                "batch_size": 2,
                "lr": 1e-3,
                "warmup_steps": 2,
                "checkpoint_every": 2,
            },
        ),
        "cpu": Profile(
            3,
            {
                "data": {"train": "train", "test": "val"},
                "augment": {"patch_size": [32, 32, 32]},
                "steps": 200,
                "batch_size": 2,
                "lr": 3e-3,
                "warmup_steps": 30,
            },
        ),
        "gpu": Profile(
            3,
            {
                "data": {"train": "train", "test": "val"},
                "augment": {"patch_size": [40, 56, 40], "rotate": 15.0, "scale": [0.85, 1.2], "intensity": 0.1},
                "steps": 5000,
                "batch_size": 16,
                "lr": 1e-3,
                "warmup_steps": 200,
                "precision": "bf16",
                "device": "cuda",
                "workers": 8,
            },
        ),
    },
    metric="dice",
)

VOLUMES_BRAINS = Study(
    name="volumes_brains",
    question="Does GLAM tell left from right in volumes far larger than a window?",
    dataset="brains",
    baseline="nnformer",
    overrides={"embed_dim": 32, "depths": [2, 2, 2, 2], "num_heads": [2, 4, 8, 16]},
    variants=_VOLUME_VARIANTS,
    profiles={
        "gpu": Profile(
            3,
            {
                "data": {"train": "train", "test": "test", "sides": True},
                "augment": {"patch_size": [96, 96, 96], "foreground": 0.0, "intensity": 0.1},
                "steps": 6000,
                "batch_size": 2,
                "lr": 1e-3,
                "warmup_steps": 200,
                "precision": "bf16",
                "device": "cuda",
                "workers": 12,
            },
        ),
    },
    metric="dice",
)

_ALL = (
    CONTEXT,
    DECODERS,
    MIXERS,
    MIXERS_48,
    MIXERS_96,
    RELEASE,
    CAMVID,
    CAMVID_TINY,
    CAMVID_IMAGENET,
    NEIGHBOURS,
    VOLUMES_CUES,
    VOLUMES_HIPPOCAMPUS,
    VOLUMES_BRAINS,
    ADE20K,
    CITYSCAPES,
)
STUDIES: dict[str, Study] = {study.name: study for study in _ALL}


def find_study(name: str) -> Study:
    """Return a study by name; InputError that lists the studies otherwise."""
    if name not in STUDIES:
        raise one_of("study", name, STUDIES)
    return STUDIES[name]


def check_profile(name: str) -> str:
    """Return a profile's name; InputError that lists the profiles otherwise."""
    if name not in PROFILES:
        raise one_of("profile", name, PROFILES)
    return name
