"""What a study is: variants that differ in the model alone (those of a schedule, in the learning rate too), and
profiles, the sizes at which all of them run.
"""

from dataclasses import dataclass, field

from glamlib.errors import one_of
from glamlib.studies.parameters import RunParameters

GENERATED = ("scenes", "cue_volumes")  # data that need no files


@dataclass(frozen=True)
class Variant:
    """One row of a study's table: a label for readers, a model's name, and what is overridden in it.

    ``whole_map_window`` makes one window of the whole map: full attention, at the profile's image size. ``lr`` is the
    variant's own learning rate, in a study that is another's ``schedule``.
    """

    label: str
    model: str
    overrides: dict = field(default_factory=dict)
    whole_map_window: bool = False
    lr: float | None = None


@dataclass(frozen=True)
class Profile:
    """A study's size: how many seeds, the parameters of `RunParameters` that go with it, and the size of all its
    networks, as overrides of theirs.
    """

    seeds: int
    run: dict
    overrides: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A question, the variants that answer it, and the sizes it can be asked at.

    ``baseline`` is the variant that the others are compared with, by ``metric``: "miou", or "dice" for volumes.
    ``needs_weights``: its runs start from ImageNet weights, and it waits for their files (`places.imagenet_file`).
    ``schedule``: the study that chooses its learning rate on validation data (`schedule.with_chosen_rate`).
    """

    name: str
    question: str
    dataset: str
    baseline: str
    overrides: dict
    variants: dict[str, Variant]
    profiles: dict[str, Profile]
    metric: str = "miou"
    needs_weights: bool = False
    schedule: "Study | None" = None

    @property
    def needs_files(self) -> bool:
        """Whether the data lie on disk."""
        return self.dataset not in GENERATED

    def run(self, variant: str, seed: int, profile: str) -> RunParameters:
        """Return the parameters of one run; InputError for an unknown variant or a profile this study has not."""
        if variant not in self.variants:
            raise one_of(f"variant of study {self.name}:", variant, self.variants)
        if profile not in self.profiles:
            raise one_of(f"profile of study {self.name}:", profile, self.profiles)
        chosen = self.variants[variant]
        sizes = self.profiles[profile].run
        overrides = self.overrides | self.profiles[profile].overrides | chosen.overrides
        if chosen.whole_map_window:
            overrides["window_size"] = sizes["data"]["size"] // 4  # pixels to patches
        return RunParameters.from_dict(
            {
                "study": self.name,
                "variant": variant,
                "seed": seed,
                "profile": profile,
                "model": chosen.model,
                "overrides": overrides,
                "dataset": self.dataset,
                **sizes,
                **({} if chosen.lr is None else {"lr": chosen.lr}),
            }
        )

    def runs(self, profile: str, seeds: int | None = None) -> list[RunParameters]:
        """Return all runs of a profile, seed by seed, so that a cut-off study has whole sets of variants.

        Raises:
            InputError: this study has no such profile.
        """
        if profile not in self.profiles:
            raise one_of(f"profile of study {self.name}:", profile, self.profiles)
        count = seeds or self.profiles[profile].seeds
        return [self.run(variant, seed, profile) for seed in range(count) for variant in self.variants]
