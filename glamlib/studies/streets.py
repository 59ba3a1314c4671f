"""The studies on street scenes: CamVid, at nano size on a CPU and at the published sizes on a GPU."""

from dataclasses import replace

from glamlib.studies.study import ON_GPU, Profile, Study, variants_of

_QUICK = Profile(
    data={"train": "train", "test": "test", "size": [72, 96], "limit": 24},
    parameters={"steps": 10, "batch_size": 4, "lr": 1e-3, "warmup_steps": 2, "checkpoint_every": 5},
    augment={"crop_size": [64, 96]},
)
_CPU = Profile(  # a short look, which decides nothing
    data={"train": "train", "test": "test", "size": [120, 160]},
    # lr and the mild augmentation were chosen for Swin on the validation images, and serve all variants
    parameters={"steps": 600, "batch_size": 4, "lr": 3e-3, "warmup_steps": 50},
    augment={"crop_size": [96, 128], "scale_range": [0.75, 1.5], "jitter": False},
)
# The published recipe at a third of the size. 2 core-seconds a step of the ten variants of camvid, 5 seeds: 21 hours
_NIGHT = Profile(
    seeds=5,
    data={"train": "train", "test": "test", "size": [120, 160]},
    parameters={"steps": 7500, "batch_size": 8, "lr": 2e-3, "weight_decay": 0.05, "warmup_steps": 300},
    augment={"crop_size": [96, 128]},
)
_GPU = Profile(
    seeds=3,
    data={"train": "trainval", "test": "test", "size": [360, 480]},
    parameters={"steps": 6000, "batch_size": 16, "lr": 1e-3, "warmup_steps": 300} | ON_GPU,
    augment={"crop_size": [320, 448]},
)
_SHORT = ("swin", "glam_1", "glam_10")  # the variants of short looks

CAMVID = Study(
    name="camvid",
    question="Does GLAM segment real street scenes better than Swin?",
    dataset="camvid",
    baseline="swin",
    overrides={},
    variants=variants_of("camvid"),
    profiles={"quick": replace(_QUICK, variants=_SHORT), "cpu": replace(_CPU, variants=_SHORT)}
    | {"night": _NIGHT, "gpu": _GPU},
)


def _with_rate_search(study: Study, question: str, rates: tuple[float, ...]) -> Study:
    """Return a study with its learning-rate search: trained on the training images, scored on the validation images.

    The mean of two networks decides, so that the rate is not one's own.
    """
    gpu = study.profiles["gpu"]
    data, parameters = gpu.data | {"train": "train", "test": "val"}, gpu.parameters | {"steps": 1000}
    search = replace(
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
        rate_search=None,
    )
    return replace(study, rate_search=search)


_TINY = _GPU.parameters | {"steps": 3000, "compile": True, "workers": 12, "checkpoint_every": 1000}
CAMVID_TINY = _with_rate_search(
    replace(
        CAMVID,
        name="camvid_tiny",
        question="Is the paper's Tiny size better with global tokens on street scenes at full resolution?",
        overrides={"drop_path": 0.1},
        variants=variants_of("camvid_tiny"),
        profiles={"gpu": replace(_GPU, parameters=_TINY)},
    ),
    "Which learning rate suits the Tiny size, on the validation images?",
    rates=(3e-4, 1e-3, 3e-3),
)
CAMVID_IMAGENET = _with_rate_search(
    replace(
        CAMVID_TINY,
        name="camvid_imagenet",
        question="Is it better on street scenes from ImageNet weights, as the paper starts?",
        profiles={"gpu": replace(_GPU, parameters=_TINY | {"pretrained": "imagenet", "lr": 3e-4})},
        needs_weights=True,
    ),
    "Which learning rate suits it from ImageNet weights, on the validation images?",
    rates=(1e-4, 3e-4, 1e-3),
)

# 1.9 core-seconds a step of the twelve variants, 3 seeds: 2.5 core-hours
NEIGHBOURS = replace(
    CAMVID,
    name="neighbours",
    question="How does GLAM stand among multi-resolution transformers of its size?",
    variants=variants_of("neighbours"),
    profiles={"night": replace(_NIGHT, seeds=3, parameters=_NIGHT.parameters | {"steps": 1500})},
)
NEIGHBOURS_TINY = replace(
    CAMVID_TINY,
    name="neighbours_tiny",
    question="How does GLAM stand among them at the paper's Tiny size?",
    variants=variants_of("neighbours_tiny"),
    profiles={"gpu": replace(_GPU, parameters=_GPU.parameters | {"steps": 3000})},
)
