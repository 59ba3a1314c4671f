"""The studies on street scenes: CamVid, at nano size on a CPU and at the published sizes on a GPU."""

from glamlib.studies.study import Profile, Study, Variant

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

_BASELINE_AND_TOKENS = {
    "swin": Variant("Swin", "swin_nano_upernet"),
    "glam_10": Variant("GLAM, 10 tokens", "glam_swin_nano_upernet", {"num_global_tokens": 10}),
}

CAMVID = Study(
    name="camvid",
    question="Does GLAM segment real street scenes better than Swin?",
    dataset="camvid",
    baseline="swin",
    overrides={"decoder_channels": 32},
    variants={
        "swin": _BASELINE_AND_TOKENS["swin"],
        "glam_1": Variant("GLAM, 1 token", "glam_swin_nano_upernet", {"num_global_tokens": 1}),
        "glam_10": _BASELINE_AND_TOKENS["glam_10"],
    },
    profiles=_STREETS,
)

# Nine architectures would take two cores three quarters of an hour at the steps above: a third of them. The warm-up was
# chosen on the validation images, for Swin and Swin-UNet alike.
_SHORTER = _STREETS | {"cpu": Profile(3, _STREETS["cpu"].run | {"steps": 200, "warmup_steps": 10})}

CAMVID_ARCHITECTURES = Study(
    name="camvid_architectures",
    question="What do the decoder, the stages that have tokens, and another encoder change on street scenes?",
    dataset="camvid",
    baseline="swin",
    overrides=CAMVID.overrides,
    variants=_BASELINE_AND_TOKENS
    | {
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
    profiles=_SHORTER,
)

_TINY_STREETS = {
    "gpu": Profile(
        3,
        _STREETS["gpu"].run | {"steps": 3000, "compile": True, "workers": 12, "checkpoint_every": 1000},
    )
}
_TINY_OVERRIDES = {"drop_path": 0.1}


def _schedule(name: str, question: str, rates: tuple[float, ...], run: dict, needs_weights: bool = False) -> Study:
    """Return a study of learning rates for the Tiny size: trained on the training images, scored on the validation
    images, by two networks whose mean decides, so that the rate is not one's own.
    """
    networks = {
        "swin": ("Swin-T", "swin_tiny_upernet", {}),
        "glam_10": ("GLAM-Swin-T", "glam_swin_tiny_upernet", {"num_global_tokens": 10}),
    }
    return Study(
        name=name,
        question=question,
        dataset="camvid",
        baseline=f"swin_{rates[1]:g}",
        overrides=_TINY_OVERRIDES,
        variants={
            f"{key}_{rate:g}": Variant(f"{label}, lr {rate:g}", model, overrides, lr=rate)
            for rate in rates
            for key, (label, model, overrides) in networks.items()
        },
        profiles={"gpu": Profile(1, run | {"data": run["data"] | {"train": "train", "test": "val"}, "steps": 1000})},
        needs_weights=needs_weights,
    )


_IMAGENET_STREETS = _TINY_STREETS["gpu"].run | {"pretrained": "imagenet", "lr": 3e-4}

CAMVID_TINY_SCHEDULE = _schedule(
    "camvid_tiny_schedule",
    "Which learning rate suits the Tiny size, on the validation images?",
    (3e-4, 1e-3, 3e-3),
    _TINY_STREETS["gpu"].run,
)

CAMVID_TINY = Study(
    name="camvid_tiny",
    question="Is the paper's Tiny size better with global tokens on street scenes at full resolution?",
    dataset="camvid",
    baseline="swin",
    overrides=_TINY_OVERRIDES,
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
    schedule=CAMVID_TINY_SCHEDULE,
)

CAMVID_IMAGENET_SCHEDULE = _schedule(
    "camvid_imagenet_schedule",
    "Which learning rate suits it from ImageNet weights, on the validation images?",
    (1e-4, 3e-4, 1e-3),
    _IMAGENET_STREETS,
    needs_weights=True,
)

CAMVID_IMAGENET = Study(
    name="camvid_imagenet",
    question="Is it better on street scenes from ImageNet weights, as the paper starts?",
    dataset="camvid",
    baseline="swin",
    overrides=_TINY_OVERRIDES,
    variants=CAMVID_TINY.variants,
    profiles={"gpu": Profile(3, _IMAGENET_STREETS)},
    needs_weights=True,
    schedule=CAMVID_IMAGENET_SCHEDULE,
)

NEIGHBOURS = Study(
    name="neighbours",
    question="How does GLAM stand among multi-resolution transformers of its size?",
    dataset="camvid",
    baseline="swin",
    overrides=_TINY_OVERRIDES,
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
    schedule=CAMVID_TINY_SCHEDULE,
)
