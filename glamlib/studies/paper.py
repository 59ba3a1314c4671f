"""The paper's own studies, at its own size: ADE20K and Cityscapes with the recipe of the released configurations.

Source: themyrl/glam at 44abe55, configs/glam_swin_upernet, glam_swin_unet and swinunet, for mmsegmentation, which pads
crops in the mean colour and takes the mean loss over all pixels of a batch. Otherwise here: void pixels are left out of
that mean; the warm-up ends at the full rate, where mmsegmentation's follows the decay meanwhile (1 % less at its end);
only the last weights are evaluated.
"""

from dataclasses import replace

from glamlib.studies.study import Profile, Study, variants_of


def _recipe(crop_size: list[int], long_short: list[int]) -> Profile:
    """Return the recipe for crops of (height, width) from images resized within (long, short) pixels."""
    return Profile(
        data={"train": "train", "test": "val", "in_memory": False},
        parameters={"pretrained": "imagenet", "steps": 160_000, "batch_size": 16, "lr": 6e-5, "warmup_steps": 1500}
        | {"weight_decay": 0.01, "decay": "released", "clip_norm": 0.0, "device": "cuda", "workers": 8}
        | {"evaluate": {"resize": long_short}, "checkpoint_every": 2000},  # whole, single scale, not mirrored
        augment={"crop_size": crop_size, "long_short": long_short, "scale_range": [0.5, 2.0]}
        | {"cat_max_ratio": 0.75, "fill": [124, 116, 104]},
    )


ADE20K = Study(
    name="ade20k",
    question="The paper's comparison on ADE20K: is GLAM better than Swin, at which size and with how many tokens?",
    dataset="ade20k",
    baseline="swin_tiny_upernet",
    overrides={"drop_path": 0.3},
    variants=variants_of("paper"),
    profiles={"paper": _recipe([512, 512], [2048, 512])},
)

CITYSCAPES = replace(
    ADE20K,
    name="cityscapes",
    question="The paper's comparison on Cityscapes: is GLAM better than Swin on large images?",
    dataset="cityscapes",
    # one of the four crops of the configurations, which are 512x512, 769x769, 512x1024 and 1024x1024
    profiles={"paper": _recipe([512, 1024], [2048, 1024])},
)
