"""The studies on volumes: nnFormer with and without global tokens, on generated and on real ones."""

from dataclasses import replace

from glamlib.studies.study import Profile, Study, variants_of

VOLUMES_CUES = Study(
    name="volumes_cues",
    question="Does GLAM help on volumes larger than a window?",
    dataset="cue_volumes",
    baseline="nnformer",
    # One stage of two blocks, as in the study `context`: windows of 8 voxels, five along each axis at the cpu profile.
    overrides={"depths": [2], "num_heads": [2], "embed_dim": 32, "patch_size": 4, "window_size": 2},
    variants=variants_of("volumes"),
    profiles={
        "quick": Profile(
            data={"size": 32, "train": 32, "test": 8},
            parameters={"steps": 10, "batch_size": 4, "lr": 3e-3, "warmup_steps": 2, "checkpoint_every": 5},
        ),
        # More than half of the shapes' voxels lie beyond nnFormer's reach.
        "cpu": Profile(
            seeds=10,  # five at first, as in the studies on cue scenes
            data={"size": 40, "cue_size": 12, "min_distance": 20, "num_shapes": 3}
            | {"train": 2000, "val": 40, "test": 200},
            parameters={"steps": 300, "batch_size": 8, "lr": 3e-3, "warmup_steps": 50}
            | {"loss": "balanced", "validate_every": 50, "stop_at": 0.985},
        ),
    },
    metric="right_given_found",
)

VOLUMES_HIPPOCAMPUS = replace(
    VOLUMES_CUES,
    name="volumes_hippocampus",
    question="Does GLAM help on small volumes, hardly larger than the window of nnFormer's last stage?",
    dataset="hippocampus",
    overrides={},
    variants=VOLUMES_CUES.variants | variants_of("volumes_reference"),
    profiles={
        "quick": Profile(
            variants=tuple(VOLUMES_CUES.variants),
            data={"train": "train", "test": "val", "limit": 4},
            parameters={"steps": 4, "batch_size": 2, "lr": 1e-3, "warmup_steps": 2, "checkpoint_every": 2},
            augment={"patch_size": [32, 32, 32]},
        ),
        # The schedule was chosen for nnFormer on a fifth of the training volumes, held out.
        "night": Profile(
            seeds=5,
            data={"train": "train", "test": "val"},
            parameters={"steps": 4000, "batch_size": 4, "lr": 3e-3, "warmup_steps": 200, "device": "auto"},
            augment={"patch_size": [40, 56, 40], "intensity": 0.1},
        ),
    },
    metric="dice",
)

VOLUMES_BRAINS = replace(
    VOLUMES_HIPPOCAMPUS,
    name="volumes_brains",
    question="Does GLAM tell left from right in volumes far larger than a window?",
    dataset="brains",
    variants=VOLUMES_CUES.variants,
    profiles={
        # The patch is nearly the whole brain (82 x 100 x 79 voxels, the median).
        "night": Profile(
            seeds=3,
            data={"train": "train", "test": "test", "sides": True, "spacing": [2, 2, 2]},
            parameters={"steps": 1500, "batch_size": 1, "lr": 1e-3, "warmup_steps": 100, "device": "auto"},
            augment={"patch_size": [80, 96, 80], "foreground": 0.0, "intensity": 0.1},
        ),
    },
)
