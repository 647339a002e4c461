"""Settings of the images and of what they teach."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from knowhue.config.section import Count, Section, Share


class Images(Section):
    """Where images come from and how they are made ready."""

    source: Literal["folder", "imagenet", "huggingface", "drawn"] = Field(
        default="folder", description="kind of source; `knowhue study PATH` implies a folder"
    )
    path: str | None = Field(
        default=None, description="folder, root of a local ImageNet tree, or name of a Hugging Face dataset"
    )
    wordnet_ids: dict[str, str] = Field(
        default_factory=dict, description="class name to WordNet id, for `source: imagenet`"
    )
    image_column: str = Field(default="image", description="Hugging Face: column of the images")
    label_column: str = Field(default="label", description="Hugging Face: column of the labels")
    size_px: Annotated[int, Field(ge=16, le=1024)] = Field(
        default=96, description="side of the square images, pixels"
    )
    validation_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="share split off per class where the source has no validation part"
    )
    test_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="share split off per class where the source has no test part; 0: the validation part reports",
    )
    split_seed: Annotated[int, Field(ge=0)] = Field(default=0, description="seed of these splits")
    min_colourfulness: Annotated[float, Field(ge=0)] = Field(
        default=4.0,
        description="Hasler-Suesstrunk colourfulness (0 to about 110) below which an image is near-gray",
    )
    duplicate_distance_bits: Annotated[int, Field(ge=0, le=16)] = Field(
        default=8,
        description="bits of 64 that perceptual hashes of copies may differ in; 0 finds only equal pixels",
    )
    min_per_class: Count = Field(default=10, description="labelled training images that each class needs")
    drawn_count: Count = Field(default=1500, description="drawn: images, training and validation together")
    drawn_seed: Annotated[int, Field(ge=0)] = Field(default=0, description="drawn: seed of the set")
    class_colour: Share = Field(
        default=0.8, description="drawn: how far colour follows from class given the lightness, 0 to 1"
    )

    @model_validator(mode="after")
    def _something_is_left_to_train(self) -> "Images":
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                "`images.validation_share` and `images.test_share` should be below 1 together. Found "
                f"{self.validation_share:g} and {self.test_share:g}."
            )
        return self


class Supervision(Section):
    """What the training images teach. Validation images always keep the truth."""

    image_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="share of each class's training images that is trained on; the rest is not seen",
    )
    resample: bool = Field(
        default=False,
        description="draw that share anew for every seed; otherwise all seeds train on the same images",
    )
    labelled_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="share of each class's training labels that are known; the rest trains colour only",
    )
    labelled_batch_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5,
        description="least share of every batch that is labelled, where some training images are not",
    )
    placebo: Literal["none", "labels", "colours"] = Field(
        default="none",
        description="control: `labels` are shuffled over the images, or `colours` are another image's",
    )

    @model_validator(mode="after")
    def _resampling_has_a_choice(self) -> "Supervision":
        if self.resample and self.image_share == 1:
            raise ValueError(
                "`supervision.image_share` should be below 1 where `supervision.resample = true`: of all images there "
                "is nothing to draw. Found `supervision.image_share = 1.0`."
            )
        return self
