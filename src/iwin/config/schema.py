"""What a run is made of, typed and validated, in this project's own words.

`RunConfig` is the only form in which settings reach the rest of the program: `config.dialect` makes one from an
upstream-style file, `build` turns it into objects. Every model is frozen and refuses unknown fields.
"""

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Size = tuple[PositiveInt, PositiveInt]
"""(height, width) in pixels, or a window's (rows, columns) in tokens."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError(f"{interval} should be (lowest, highest)")
    return interval


Interval = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ordered)]
"""(lowest, highest) of a random value."""


class Settings(BaseModel):
    """Base of every group of settings: immutable, no unknown fields, attribute docstrings become documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


# ------------------------------------------------------------------------------------------------ model


class BackboneSettings(Settings):
    """The Iwin Transformer backbone."""

    patch_size: tuple[PositiveInt, PositiveInt, PositiveInt] = (2, 4, 4)
    """Patch size (time, height, width)."""
    embed_dim: PositiveInt = 96
    """Channels after the patch embedding; each stage doubles them."""
    depths: tuple[PositiveInt, ...] = (2, 2, 6, 2)
    """Blocks in each stage."""
    num_heads: tuple[PositiveInt, ...] = (3, 6, 12, 24)
    """Attention heads in each stage."""
    window_size: Size = (7, 7)
    """Spatial window (rows, columns); attention runs over all frames of a window jointly."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of the MLP relative to its input."""
    qkv_bias: bool = True
    """Whether the query/key/value projection has a bias."""
    qk_scale: PositiveFloat | None = None
    """Attention scale; None means head_dim ** -0.5."""
    drop_rate: Fraction = 0.0
    """Dropout after the embedding, the projections and in the MLP."""
    attn_drop_rate: Fraction = 0.0
    """Dropout on the attention weights."""
    drop_path_rate: Fraction = 0.1
    """Stochastic depth of the last block; it grows linearly from 0 in the first."""
    patch_norm: bool = True
    """LayerNorm after the patch embedding."""
    frozen_stages: Annotated[int, Field(ge=-1, le=4)] = -1
    """-1 trains everything; 0 freezes the patch embedding; k > 0 also freezes the first k stages."""
    use_checkpoint: bool = False
    """Gradient checkpointing: recompute every block's activations in the backward pass to save memory."""

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if not self.depths or len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths {self.depths} and num_heads {self.num_heads} must name the same stages")
        for stage, heads in enumerate(self.num_heads):
            channels = self.embed_dim * 2**stage
            if channels % heads:
                raise ValueError(f"the {channels} channels of stage {stage + 1} do not divide into {heads} heads")
        return self

    @property
    def num_features(self) -> int:
        """Channels after the last stage."""
        return self.embed_dim * 2 ** (len(self.depths) - 1)


class ModelSettings(Settings):
    """Backbone, head and the weights to start from."""

    backbone: BackboneSettings = BackboneSettings()
    num_classes: PositiveInt | None = None
    """Number of classes; None takes it from the training data."""
    dropout: Fraction = 0.5
    """Dropout before the classifier."""
    init_std: NonNegativeFloat = 0.01
    """Standard deviation of the classifier's initial weights."""
    label_smoothing: Fraction = 0.0
    """Share of the target probability that is spread over all classes."""
    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    """Binary cross entropy treats every class by itself, for videos with several labels."""
    loss_weight: PositiveFloat = 1.0
    """Factor on the loss."""
    class_weights: tuple[NonNegativeFloat, ...] | None = None
    """Weight of each class in the loss."""
    num_frames: PositiveInt = 32
    """Clip length that `time_embed` is sized for; other lengths interpolate it."""
    pretrained: str | None = None
    """Weights to start from: a file, URL or Hub id; an image model's weights are inflated."""
    pretrained_image: bool = True
    """Whether `pretrained` names an image (2D) model, as upstream assumes; the loader detects it and says so."""


# ------------------------------------------------------------------------------------------------ data


class SamplingSettings(Settings):
    """Which frames of a video make its clips."""

    clip_len: PositiveInt = 32
    """Frames in a clip."""
    frame_interval: PositiveInt = 1
    """Distance between neighbouring frames of a clip, in frames of the video."""
    num_clips: PositiveInt = 1
    """Clips taken from a video."""
    temporal_jitter: bool = False
    """Move every frame by a random 0 .. frame_interval - 1 (training)."""
    twice_sample: bool = False
    """At test time take the clips at both the shifted and the unshifted offsets."""
    out_of_bound: Literal["loop", "repeat_last"] = "loop"
    """What stands for frames past the end of a short video."""
    uniform: bool = False
    """One frame from each of clip_len equal segments of the whole video instead of dense clips."""
    test_mode: bool = False
    """Fixed, centred offsets instead of random ones."""


class Resize(Settings):
    """Resize with bilinear interpolation, without antialiasing (the published numbers rest on that)."""

    kind: Literal["resize"] = "resize"
    short_side: PositiveInt | None = None
    """Scale so that the short side has this many pixels, keeping the aspect ratio."""
    size: Size | None = None
    """Or scale to exactly (height, width)."""
    fit: Size | None = None
    """Or scale to the largest size that keeps the aspect ratio and has no long side above max(fit), no short side
    above min(fit)."""


class RandomResizedCrop(Settings):
    """A random box by area and aspect ratio; a Resize follows it."""

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    area_range: Interval = (0.08, 1.0)
    aspect_ratio_range: Interval = (3 / 4, 4 / 3)


class RandomCrop(Settings):
    """A square box at a random place."""

    kind: Literal["random_crop"] = "random_crop"
    size: PositiveInt


class CenterCrop(Settings):
    """The central box."""

    kind: Literal["center_crop"] = "center_crop"
    size: Size


class ThreeCrop(Settings):
    """Three boxes along the long side: left (top), right (bottom), middle, in that order; each is a view of its own."""

    kind: Literal["three_crop"] = "three_crop"
    size: Size


class TenCrop(Settings):
    """Four corners and centre, each also mirrored; each is a view of its own."""

    kind: Literal["ten_crop"] = "ten_crop"
    size: Size


class MultiScaleCrop(Settings):
    """A box whose sides are the short side times some of `scales`; a Resize to `size` follows it."""

    kind: Literal["multi_scale_crop"] = "multi_scale_crop"
    size: Size
    """A side that comes within 3 pixels of it is set to it, to spare the resize."""
    scales: tuple[PositiveFloat, ...] = (1.0,)
    max_scale_gap: NonNegativeInt = 1
    """How far apart in `scales` the two sides may be."""
    random_place: bool = False
    """Put the box anywhere instead of at one of the fixed places."""
    fixed_places: Literal[5, 13] = 5
    """Corners and centre, or these and eight places between them."""


class Flip(Settings):
    """Mirror the whole clip with a probability."""

    kind: Literal["flip"] = "flip"
    probability: Fraction = 0.5
    direction: Literal["horizontal", "vertical"] = "horizontal"
    label_map: tuple[tuple[NonNegativeInt, NonNegativeInt], ...] = ()
    """(class, class of the mirrored video) for the classes that know left from right."""


class ColorJitter(Settings):
    """Random brightness, contrast, saturation and hue, the same for all frames of a clip."""

    kind: Literal["color_jitter"] = "color_jitter"
    brightness: NonNegativeFloat = 0.5
    contrast: NonNegativeFloat = 0.5
    saturation: NonNegativeFloat = 0.5
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1


class RandAugment(Settings):
    """A few random image operations of one strength, the same for all frames of a clip."""

    kind: Literal["rand_augment"] = "rand_augment"
    num_ops: PositiveInt = 2
    magnitude: NonNegativeInt = 9
    """Strength from 0 to 30."""


class RandomErasing(Settings):
    """Fill random boxes, the same in all frames of a clip."""

    kind: Literal["random_erasing"] = "random_erasing"
    probability: Fraction = 0.5
    area_range: Interval = (0.02, 1 / 3)
    """Area of the boxes together, as a share of the frame."""
    aspect_ratio_range: Interval = (0.3, 1 / 0.3)
    fill: Literal["mean", "color", "noise"] = "mean"
    """With the mean colour (zero after normalisation), one random colour, or a random colour for each pixel."""
    count_range: tuple[PositiveInt, PositiveInt] = (1, 1)
    """Lowest and highest number of boxes."""


TransformSettings = Annotated[
    Resize
    | RandomResizedCrop
    | RandomCrop
    | CenterCrop
    | ThreeCrop
    | TenCrop
    | MultiScaleCrop
    | Flip
    | ColorJitter
    | RandAugment
    | RandomErasing,
    Field(discriminator="kind"),
]


class NormalizeSettings(Settings):
    """Mean and standard deviation of each channel on the 0-255 scale; applied on the device."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (58.395, 57.12, 57.375)
    bgr: bool = False
    """Whether the model was trained on BGR channels."""


class SplitSettings(Settings):
    """One split of the data: where its videos are listed, and how clips are made from them."""

    ann_file: str | None = None
    """List of `path label` lines, a shard index or tar files, or a metadata table; None looks for shards, a metadata
    table or class folders in `root`. Paths or addresses (s3://, gs://, hf://, https://)."""
    root: str = ""
    """Folder or address that the list's paths are relative to, or that holds the shards, the table or the folders."""
    frames: bool = False
    """Whether samples are folders of extracted frames instead of video files."""
    filename_template: str = "img_{:05}.jpg"
    """Name of a frame in such a folder."""
    with_offset: bool = False
    """Whether the list gives, between path and length, how far a video begins behind `start_index`."""
    start_index: NonNegativeInt | None = None
    """Number of the first frame; None means 0 for videos and 1 for frame folders."""
    multi_class: bool = False
    """Whether a video can have several labels."""
    num_classes: PositiveInt | None = None
    """Number of classes of a multi-label list."""
    decoder: Literal["auto", "pyav", "torchcodec"] = "pyav"
    """What decodes video files; "auto" chooses and says so."""
    sampling: SamplingSettings = SamplingSettings()
    transforms: tuple[TransformSettings, ...] = ()
    normalize: NormalizeSettings = NormalizeSettings()
    batch_size: PositiveInt = 1
    """Training: videos per device and optimiser step, split into `accumulation` micro-batches. Else: views that go
    through the model at once, of one video or of several, if more than 8."""
    num_workers: NonNegativeInt = 2
    """Decoder processes per device."""
    class_power: Fraction | None = None
    """Training: a class of n videos gets a share of an epoch proportional to n ** class_power. 0 balances the classes,
    0.5 weighs them by the square root; None takes every video once."""
    repeats: PositiveInt = 1
    """Training: clips of the same video in a batch (repeated augmentation); an epoch keeps its length."""
    scaling: Literal["exact", "crop_first", "swscale"] = "exact"
    """What may be done to spare work: nothing that changes a pixel ("exact"); take crops behind a resize from the
    unscaled picture and scale once ("crop_first"); the same, and let the decoder scale while it makes RGB of the
    pictures ("swscale"), which averages where it shrinks."""


class BadVideoSettings(Settings):
    """What becomes of videos that cannot be read."""

    policy: Literal["error", "skip", "resample"] = "resample"
    """Another video takes the place of a bad one in training, and it is skipped in testing ("resample"); it is left out
    of its batch in both ("skip"); or the first one ends the run ("error")."""
    max_share: Fraction = 0.01
    """The largest share of a split that may be bad; above it the run stops. One bad video passes in any split; 0 lets
    none pass."""
    time_limit: PositiveFloat = 60.0
    """Seconds that reading a video may take in a decoder process, before that is replaced."""


class DataSettings(Settings):
    """The splits; a run needs those that it uses."""

    train: SplitSettings | None = None
    val: SplitSettings | None = None
    test: SplitSettings | None = None
    bad_videos: BadVideoSettings = BadVideoSettings()


class BlendingSettings(Settings):
    """Mixing the videos of a training batch with each other, and their labels with them."""

    mixup_alpha: PositiveFloat | None = None
    """Beta(alpha, alpha) of the mixing share; None does without mixup."""
    cutmix_alpha: PositiveFloat | None = None
    """Beta(alpha, alpha) of the area that stays; None does without cutmix."""
    cutmix_probability: Fraction = 0.5
    """How often cutmix is chosen where both are on."""


# ------------------------------------------------------------------------------------------------ training


class ParamGroupRule(Settings):
    """Multipliers for the parameters whose name contains `key`."""

    key: str
    lr_mult: NonNegativeFloat = 1.0
    decay_mult: NonNegativeFloat = 1.0


class OptimSettings(Settings):
    """Optimiser, its parameter groups and how gradients reach it."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: NonNegativeFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    momentum: Fraction = 0.0
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 0.05
    rules: tuple[ParamGroupRule, ...] = ()
    """Tried longest key first (ties in alphabetical order); the first hit decides."""
    norm_decay_mult: NonNegativeFloat | None = None
    bias_lr_mult: NonNegativeFloat | None = None
    bias_decay_mult: NonNegativeFloat | None = None
    accumulation: PositiveInt = 1
    """Micro-batches per optimiser step."""
    grad_clip: PositiveFloat | None = None
    """Largest total gradient norm; None does not clip."""
    mixed_precision: bool = False
    """Train in bf16 (fp16 where the device has no bf16) with fp32 weights."""


class ScheduleSettings(Settings):
    """Learning rate over time."""

    policy: Literal["constant", "cosine", "step"] = "cosine"
    by_epoch: bool = True
    """Whether the policy moves once an epoch (and is constant within it) or every iteration."""
    min_lr: NonNegativeFloat = 0.0
    """Cosine: the rate at the end."""
    min_lr_ratio: NonNegativeFloat | None = None
    """Cosine: the same as a ratio of each group's rate."""
    steps: tuple[PositiveInt, ...] = ()
    """Step: epochs (or iterations) after which the rate is multiplied by `gamma`."""
    gamma: PositiveFloat = 0.1
    warmup: Literal["constant", "linear", "exp"] | None = None
    warmup_length: NonNegativeFloat = 0.0
    """In iterations, or in epochs when `warmup_by_epoch`."""
    warmup_by_epoch: bool = False
    warmup_ratio: PositiveFloat = 0.1
    """First rate of the warm-up, relative to the policy's."""


class EvaluationSettings(Settings):
    """Validation during training, and what a test reports."""

    interval: PositiveInt = 1
    """Epochs between validations."""
    metrics: tuple[Literal["top_k_accuracy", "mean_class_accuracy", "mean_average_precision"], ...] = (
        "top_k_accuracy",
        "mean_class_accuracy",
    )
    topk: tuple[PositiveInt, ...] = (1, 5)
    save_best: str | None = "auto"
    """Score that decides which checkpoint is best; "auto" takes the first one reported, None keeps no best."""


class TestSettings(Settings):
    """How the views of a video become one score."""

    __test__ = False  # not a test class, whatever its name says to pytest

    average_clips: Literal["prob", "score"] | None = "prob"
    """Mean of the views' softmax ("prob"), of their logits ("score"), or no mean."""
    max_testing_views: PositiveInt | None = None
    """Views that may be in the model at the same time; None stands for 8 or `videos_per_gpu` in a test, the larger one,
    and for all of a video in a prediction."""


class RunConfig(Settings):
    """A whole run."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    blending: BlendingSettings | None = None
    optim: OptimSettings = OptimSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    test: TestSettings = TestSettings()
    epochs: PositiveInt = 30
    work_dir: str | None = None
    """Folder of the run's log and checkpoints; None is work_dirs/<config name>."""
    checkpoint_interval: PositiveInt = 1
    """Epochs between checkpoints."""
    keep_checkpoints: PositiveInt | None = None
    """Epoch checkpoints that are kept; None keeps all."""
    log_interval: PositiveInt = 20
    """Iterations between log lines."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers beside the JSON-lines log, by Accelerate's names."""
    load_from: str | None = None
    """Recogniser checkpoint whose weights the run starts from."""
    resume_from: str | None = None
    """Work directory or state folder to continue exactly where it stopped."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    deterministic: bool = False
    find_unused_parameters: bool = False
