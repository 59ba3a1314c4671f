"""The studies on street scenes: CamVid, at nano size and at the published sizes."""

from dataclasses import replace

from glamlib.studies.study import ON_GPU, Profile, Study, variants_of

_QUICK = Profile(
    data={"train": "train", "test": "test", "size": [72, 96], "limit": 24},
    parameters={"steps": 10, "batch_size": 4, "lr": 1e-3, "warmup_steps": 2, "checkpoint_every": 5},
    augment={"crop_size": [64, 96]},
)
# The published recipe at a third of the size. Batch and rate were chosen for Swin on held-out clips of the training
# sequences (the splits fit and held_out), from two pairs, and serve all variants.
_NIGHT = Profile(
    seeds=5,
    data={"train": "train", "test": "test", "size": [120, 160]},
    parameters={"steps": 5000, "batch_size": 16, "lr": 3e-3, "weight_decay": 0.05, "warmup_steps": 300}
    | {"device": "auto", "checkpoint_every": 500},
    augment={"crop_size": [96, 128]},
)
CAMVID = Study(
    name="camvid",
    question="Does GLAM segment real street scenes better than Swin?",
    dataset="camvid",
    baseline="swin",
    overrides={},
    variants=variants_of("camvid"),
    profiles={"quick": replace(_QUICK, variants=("swin", "glam_1", "glam_10")), "night": _NIGHT},
)

_PUBLISHED = Profile(
    seeds=3,
    data={"train": "trainval", "test": "test", "size": [360, 480]},
    parameters={"steps": 6000, "batch_size": 16, "lr": 1e-3, "warmup_steps": 300} | ON_GPU,
    augment={"crop_size": [320, 448]},
)
_TINY = _PUBLISHED.parameters | {"steps": 3000, "compile": True, "workers": 12, "checkpoint_every": 1000}
CAMVID_TINY = replace(
    CAMVID,
    name="camvid_tiny",
    question="Is the paper's Tiny size better with global tokens on street scenes at full resolution?",
    overrides={"drop_path": 0.1},
    variants=variants_of("camvid_tiny"),
    profiles={"paper": replace(_PUBLISHED, parameters=_TINY)},
)
CAMVID_IMAGENET = replace(
    CAMVID_TINY,
    name="camvid_imagenet",
    question="Is it better on street scenes from ImageNet weights, as the paper starts?",
    profiles={"paper": replace(_PUBLISHED, parameters=_TINY | {"pretrained": "imagenet", "lr": 3e-4})},
    needs_weights=True,
)

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
    profiles={"paper": replace(_PUBLISHED, parameters=_PUBLISHED.parameters | {"steps": 3000})},
)
