"""The studies on street scenes: CamVid, at nano size on a CPU and at the published sizes on a GPU."""

from dataclasses import replace

from glamlib.studies.study import ON_GPU, Profile, Study, variants_of

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

CAMVID = Study(
    name="camvid",
    question="Does GLAM segment real street scenes better than Swin?",
    dataset="camvid",
    baseline="swin",
    overrides={"decoder_channels": 32},
    variants=variants_of("camvid"),
    profiles={"quick": _QUICK, "cpu": _CPU, "gpu": _GPU},
)

CAMVID_ARCHITECTURES = replace(
    CAMVID,
    name="camvid_architectures",
    question="What do the decoder, the stages that have tokens, and another encoder change on street scenes?",
    variants=variants_of("camvid_architectures"),
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
    variants=variants_of("camvid_tiny"),
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
    variants=variants_of("neighbours"),
    profiles={"gpu": replace(_GPU, parameters=_GPU.parameters | {"steps": 3000})},
)
