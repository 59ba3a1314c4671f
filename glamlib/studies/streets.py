"""The studies on street scenes: CamVid, at nano size on a CPU and at the published sizes on a GPU."""

from dataclasses import replace

from glamlib.studies.study import ON_GPU, Profile, Study, Variant, with_tokens

_QUICK = Profile(
    seeds=1,
    data={"train": "train", "test": "test", "size": [72, 96], "limit": 24},
    parameters={"steps": 10, "batch_size": 4, "lr": 1e-3, "warmup_steps": 2, "checkpoint_every": 5},
    augment={"crop_size": [64, 96]},
)
_CPU = Profile(
    seeds=3,
    data={"train": "train", "test": "test", "size": [120, 160]},
    # lr and the mild augmentation were chosen for Swin on the validation images, and serve all variants
    parameters={"steps": 600, "batch_size": 4, "lr": 3e-3, "warmup_steps": 50},
    augment={"crop_size": [96, 128], "scale_range": [0.75, 1.5], "jitter": False},
)
_GPU = Profile(
    seeds=3,
    data={"train": "trainval", "test": "test", "size": [360, 480]},
    parameters={"steps": 6000, "batch_size": 16, "lr": 1e-3, "warmup_steps": 300} | ON_GPU,
    augment={"crop_size": [320, 448]},
)

_SWIN = Variant("Swin", "swin_nano_upernet")

CAMVID = Study(
    name="camvid",
    question="Does GLAM segment real street scenes better than Swin?",
    dataset="camvid",
    baseline="swin",
    overrides={"decoder_channels": 32},
    variants={"swin": _SWIN} | with_tokens("GLAM", "glam_swin_nano_upernet", 1, 10),
    profiles={"quick": _QUICK, "cpu": _CPU, "gpu": _GPU},
)

CAMVID_ARCHITECTURES = replace(
    CAMVID,
    name="camvid_architectures",
    question="What do the decoder, the stages that have tokens, and another encoder change on street scenes?",
    variants={
        "swin": _SWIN,
        **with_tokens("GLAM", "glam_swin_nano_upernet", 10),
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
    # Nine architectures would take two cores three quarters of an hour at the steps above: a third of them. The warm-up
    # was chosen on the validation images, for Swin and Swin-UNet alike.
    profiles=CAMVID.profiles | {"cpu": replace(_CPU, parameters=_CPU.parameters | {"steps": 200, "warmup_steps": 10})},
)

_TINY_GPU = replace(
    _GPU, parameters=_GPU.parameters | {"steps": 3000, "compile": True, "workers": 12, "checkpoint_every": 1000}
)
_IMAGENET_GPU = replace(_TINY_GPU, parameters=_TINY_GPU.parameters | {"pretrained": "imagenet", "lr": 3e-4})

CAMVID_TINY = Study(
    name="camvid_tiny",
    question="Is the paper's Tiny size better with global tokens on street scenes at full resolution?",
    dataset="camvid",
    baseline="swin",
    overrides={"drop_path": 0.1},
    variants={
        "swin": Variant("Swin-T + UPerNet", "swin_tiny_upernet"),
        **with_tokens("GLAM-Swin-T", "glam_swin_tiny_upernet", 1, 5, 10),
        "swin_unet": Variant("Swin-T UNet", "swin_tiny_unet"),
        "glam_unet": Variant("GLAM-Swin-T UNet, 10 tokens", "glam_swin_tiny_unet", {"num_global_tokens": 10}),
        "glam_unet_nlu": Variant("GLAM-Swin-T UNet + NLU", "glam_swin_tiny_unet_nlu", {"num_global_tokens": 10}),
    },
    profiles={"gpu": _TINY_GPU},
)


def _rate_search(study: Study, question: str, rates: tuple[float, ...]) -> Study:
    """Return the learning-rate search of a study: trained on the training images, scored on the validation images.

    The mean of two networks decides, so that the rate is not one's own.
    """
    gpu = study.profiles["gpu"]
    data, parameters = gpu.data | {"train": "train", "test": "val"}, gpu.parameters | {"steps": 1000}
    return replace(
        study,
        name=f"{study.name}_rates",
        question=question,
        baseline=f"swin_{rates[1]:g}",
        variants={
            f"{key}_{rate:g}": replace(study.variants[key], label=f"{label}, lr {rate:g}", lr=rate)
            for rate in rates
            for key, label in (("swin", "Swin-T"), ("glam_10", "GLAM-Swin-T"))
        },
        profiles={"gpu": replace(gpu, seeds=1, data=data, parameters=parameters)},
    )


CAMVID_TINY_RATES = _rate_search(
    CAMVID_TINY, "Which learning rate suits the Tiny size, on the validation images?", (3e-4, 1e-3, 3e-3)
)
CAMVID_TINY = replace(CAMVID_TINY, rate_search=CAMVID_TINY_RATES)

_FROM_IMAGENET = replace(
    CAMVID_TINY,
    name="camvid_imagenet",
    question="Is it better on street scenes from ImageNet weights, as the paper starts?",
    profiles={"gpu": _IMAGENET_GPU},
    needs_weights=True,
    rate_search=None,
)
CAMVID_IMAGENET_RATES = _rate_search(
    _FROM_IMAGENET,
    "Which learning rate suits it from ImageNet weights, on the validation images?",
    (1e-4, 3e-4, 1e-3),
)
CAMVID_IMAGENET = replace(_FROM_IMAGENET, rate_search=CAMVID_IMAGENET_RATES)

NEIGHBOURS = replace(
    CAMVID_TINY,
    name="neighbours",
    question="How does GLAM stand among multi-resolution transformers of its size?",
    variants={
        "swin": Variant("Swin-T", "swin_tiny_upernet"),
        **with_tokens("GLAM-Swin-T", "glam_swin_tiny_upernet", 10),
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
    profiles={"gpu": replace(_GPU, parameters=_GPU.parameters | {"steps": 3000})},
)
