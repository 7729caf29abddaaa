"""Upstream's words for training: optimiser, gradients, learning rate, evaluation, checkpoints, log."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from iwin.config import schema
from iwin.config.dialect.words import NoEffect, Words
from iwin.config.schema import Fraction

# ------------------------------------------------------------------------------------------------ optimizer


class ParamRule(Words):
    """One entry of `custom_keys`."""

    lr_mult: NonNegativeFloat = 1.0
    decay_mult: NonNegativeFloat = 1.0


class ParamwiseCfg(Words):
    """`optimizer.paramwise_cfg`."""

    custom_keys: dict[str, ParamRule] = Field(default_factory=dict)
    norm_decay_mult: NonNegativeFloat | None = None
    bias_lr_mult: NonNegativeFloat | None = None
    bias_decay_mult: NonNegativeFloat | None = None
    bypass_duplicate: Annotated[Any, NoEffect("a shared parameter counts once")] = False

    def settings(self) -> dict[str, Any]:
        """The fields of `OptimSettings` that it sets."""
        rules = tuple(
            schema.ParamGroupRule(key=key, lr_mult=rule.lr_mult, decay_mult=rule.decay_mult)
            for key, rule in self.custom_keys.items()
        )
        return {"rules": rules, **self.model_dump(include={"norm_decay_mult", "bias_lr_mult", "bias_decay_mult"})}


class Optimizer(Words):
    """What all optimisers share."""

    lr: NonNegativeFloat
    paramwise_cfg: ParamwiseCfg = ParamwiseCfg()
    constructor: Literal["DefaultOptimizerConstructor"] = "DefaultOptimizerConstructor"


class AnyAdam(Optimizer):
    """Adam, whose weight decay is a part of the gradient, or AdamW, whose decay stands apart."""

    type: Literal["AdamW", "Adam"]
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat | None = None
    amsgrad: Literal[False] = False

    def settings(self) -> dict[str, Any]:
        """The fields of `OptimSettings` that it sets."""
        name, usual_decay = ("adamw", 0.01) if self.type == "AdamW" else ("adam", 0.0)
        decay = usual_decay if self.weight_decay is None else self.weight_decay
        own = {"name": name, "lr": self.lr, "betas": self.betas, "eps": self.eps, "weight_decay": decay}
        return own | self.paramwise_cfg.settings()


class SGD(Optimizer):
    """Stochastic gradient descent."""

    type: Literal["SGD"]
    momentum: Fraction = 0.0
    dampening: Literal[0] = 0
    weight_decay: NonNegativeFloat = 0.0
    nesterov: bool = False

    def settings(self) -> dict[str, Any]:
        """The fields of `OptimSettings` that it sets."""
        own = {"name": "sgd", **self.model_dump(include={"lr", "momentum", "weight_decay", "nesterov"})}
        return own | self.paramwise_cfg.settings()


AnyOptimizer = Annotated[AnyAdam | SGD, Field(discriminator="type")]

# ------------------------------------------------------------------------------------------------ optimizer_config

_TORCH_DECIDES = NoEffect("torch's own mixed precision and gradient exchange")


class GradClip(Words):
    """`optimizer_config.grad_clip`."""

    max_norm: PositiveFloat
    norm_type: Literal[2] = 2


class Hook(Words):
    """What all optimiser hooks share."""

    grad_clip: GradClip | None = None

    @property
    def accumulation(self) -> int:
        """Micro-batches in one optimiser step."""
        return 1

    @property
    def mixed_precision(self) -> bool:
        """Whether the hook turns mixed precision on."""
        return False

    def micro_batch(self, videos_per_gpu: int) -> int:
        """Videos that a device sees at once."""
        return videos_per_gpu


class OptimizerHook(Hook):
    """One optimiser step for every batch."""

    type: Literal["OptimizerHook"] = "OptimizerHook"


class DistOptimizerHook(Hook):
    """Video Swin's hook, which splits the batch of `videos_per_gpu` into `update_interval` micro-batches."""

    type: Literal["DistOptimizerHook"]
    update_interval: PositiveInt = 1
    use_fp16: bool = False
    coalesce: Annotated[Any, _TORCH_DECIDES] = True
    bucket_size_mb: Annotated[Any, _TORCH_DECIDES] = -1

    @property
    def accumulation(self) -> int:
        """Micro-batches in one optimiser step."""
        return self.update_interval

    @property
    def mixed_precision(self) -> bool:
        """Whether the hook turns mixed precision on."""
        return self.use_fp16

    def micro_batch(self, videos_per_gpu: int) -> int:
        """Videos that a device sees at once; a remainder is left out, as upstream does."""
        return videos_per_gpu // self.update_interval


class GradientCumulativeOptimizerHook(Hook):
    """mmcv's hook, for which `videos_per_gpu` is the micro-batch."""

    type: Literal["GradientCumulativeOptimizerHook"]
    cumulative_iters: PositiveInt = 1

    @property
    def accumulation(self) -> int:
        """Micro-batches in one optimiser step."""
        return self.cumulative_iters


def _named(config: Any) -> Any:
    """The hook's type where it is not said: the one whose words are used, or the plain one."""
    # In place, for it is our own copy and problems are found again by the identity of its dicts.
    if isinstance(config, dict):
        own = {
            "update_interval": "DistOptimizerHook",
            "use_fp16": "DistOptimizerHook",
            "cumulative_iters": "GradientCumulativeOptimizerHook",
        }
        config.setdefault("type", next((name for word, name in own.items() if word in config), "OptimizerHook"))
    return config


AnyHook = Annotated[
    OptimizerHook | DistOptimizerHook | GradientCumulativeOptimizerHook,
    Field(discriminator="type"),
    BeforeValidator(_named),
]


class Fp16(Words):
    """`fp16 = dict(...)`: mmcv's own mixed precision."""

    loss_scale: Annotated[Any, _TORCH_DECIDES] = 512.0
    coalesce: Annotated[Any, _TORCH_DECIDES] = True
    bucket_size_mb: Annotated[Any, _TORCH_DECIDES] = -1


# ------------------------------------------------------------------------------------------------ lr_config


class LrConfig(Words):
    """What all learning rate policies share."""

    by_epoch: bool = True
    warmup: Literal["constant", "linear", "exp"] | None = None
    warmup_iters: NonNegativeFloat = 0.0
    warmup_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    warmup_by_epoch: bool = False

    @model_validator(mode="after")
    def _warmup_has_length(self) -> Self:
        if self.warmup and not self.warmup_iters:
            raise ValueError(f"warmup '{self.warmup}' needs warmup_iters above 0")
        return self

    def settings(self) -> dict[str, Any]:
        """The fields of `ScheduleSettings` that it sets."""
        return {
            "by_epoch": self.by_epoch,
            "warmup": self.warmup,
            "warmup_length": self.warmup_iters,
            "warmup_by_epoch": self.warmup_by_epoch,
            "warmup_ratio": self.warmup_ratio,
        }


class FixedLr(LrConfig):
    """A constant rate."""

    policy: Literal["fixed", "Fixed"] = "fixed"

    def settings(self) -> dict[str, Any]:
        """The fields of `ScheduleSettings` that it sets."""
        return {**super().settings(), "policy": "constant"}


class StepLr(LrConfig):
    """A rate that falls at given epochs, or every so many."""

    policy: Literal["step", "Step"]
    step: PositiveInt | tuple[PositiveInt, ...]
    gamma: PositiveFloat = 0.1

    @model_validator(mode="after")
    def _iterations_are_listed(self) -> Self:
        if isinstance(self.step, int) and not self.by_epoch:
            raise ValueError("with by_epoch=False step must be a list of iterations")
        return self

    def settings(self) -> dict[str, Any]:
        """The fields of `ScheduleSettings` that it sets, all but the steps."""
        return {**super().settings(), "policy": "step", "gamma": self.gamma}

    def steps(self, *, epochs: int) -> tuple[int, ...]:
        """The epochs (or iterations) after which the rate falls, in a run of so many epochs."""
        return self.step if isinstance(self.step, tuple) else tuple(range(self.step, epochs, self.step))


class CosineLr(LrConfig):
    """A rate that falls along a cosine."""

    policy: Literal["CosineAnnealing"]
    min_lr: NonNegativeFloat | None = None
    min_lr_ratio: Fraction | None = None

    @model_validator(mode="after")
    def _one_minimum(self) -> Self:
        if (self.min_lr is None) == (self.min_lr_ratio is None):
            raise ValueError("needs min_lr or min_lr_ratio, one of the two")
        return self

    def settings(self) -> dict[str, Any]:
        """The fields of `ScheduleSettings` that it sets."""
        minimum = {"min_lr": self.min_lr or 0.0, "min_lr_ratio": self.min_lr_ratio}
        return {**super().settings(), "policy": "cosine", **minimum}


AnyLrConfig = Annotated[FixedLr | StepLr | CosineLr, Field(discriminator="policy")]

# ------------------------------------------------------------------------------------------------ evaluation, log


def _tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | int) else value


Metric = Literal["top_k_accuracy", "mean_class_accuracy", "mean_average_precision"]
TopK = Annotated[tuple[PositiveInt, ...], BeforeValidator(_tuple)]

_OUR_EVALUATION = NoEffect("our own evaluation counts every video once and compares scores by their kind")


class TopKOptions(Words):
    """`metric_options.top_k_accuracy`."""

    topk: TopK = (1, 5)


class MetricOptions(Words):
    """`evaluation.metric_options`."""

    top_k_accuracy: TopKOptions = TopKOptions()


class Evaluation(Words):
    """`evaluation`: validation during training, and the metrics of a test."""

    interval: PositiveInt = 1
    metrics: Annotated[tuple[Metric, ...], BeforeValidator(_tuple)] = ("top_k_accuracy",)
    topk: TopK | None = None
    metric_options: MetricOptions = MetricOptions()
    save_best: str | None = "auto"
    by_epoch: Literal[True] = True
    start: Annotated[Any, NoEffect("evaluation.interval alone decides")] = None
    rule: Annotated[Any, _OUR_EVALUATION] = None
    gpu_collect: Annotated[Any, _OUR_EVALUATION] = False
    tmpdir: Annotated[Any, _OUR_EVALUATION] = None
    broadcast_bn_buffer: Annotated[Any, _OUR_EVALUATION] = True

    def settings(self, *, multi_class: bool) -> schema.EvaluationSettings:
        """The evaluation in our words; several labels a video have a metric of their own."""
        usual = "metrics" not in self.model_fields_set
        metrics = ("mean_average_precision",) if multi_class and usual else self.metrics
        topk = self.topk or self.metric_options.top_k_accuracy.topk
        return schema.EvaluationSettings(interval=self.interval, metrics=metrics, topk=topk, save_best=self.save_best)


_OUR_CHECKPOINTS = NoEffect("our checkpoints hold all that resuming needs, in the work directory")


class CheckpointConfig(Words):
    """`checkpoint_config`."""

    interval: PositiveInt = 1
    by_epoch: Literal[True] = True
    max_keep_ckpts: int = -1
    save_optimizer: Annotated[Any, _OUR_CHECKPOINTS] = True
    save_last: Annotated[Any, _OUR_CHECKPOINTS] = True
    out_dir: Annotated[Any, _OUR_CHECKPOINTS] = None
    sync_buffer: Annotated[Any, _OUR_CHECKPOINTS] = False
    create_symlink: Annotated[Any, _OUR_CHECKPOINTS] = True
    filename_tmpl: Annotated[Any, _OUR_CHECKPOINTS] = None
    meta: Annotated[Any, _OUR_CHECKPOINTS] = None

    @property
    def keep(self) -> int | None:
        """Checkpoints to keep; None keeps all."""
        return self.max_keep_ckpts if self.max_keep_ckpts > 0 else None


_TRACKERS = {
    "TensorboardLoggerHook": "tensorboard",
    "WandbLoggerHook": "wandb",
    "MlflowLoggerHook": "mlflow",
    "DvcliveLoggerHook": "dvclive",
}
_TRACKER_OPTION = NoEffect("trackers log into the work directory, at log_config.interval")


class LoggerHook(Words):
    """One entry of `log_config.hooks`."""

    type: Literal["TextLoggerHook", "TensorboardLoggerHook", "WandbLoggerHook", "MlflowLoggerHook", "DvcliveLoggerHook"]
    interval: Annotated[Any, _TRACKER_OPTION] = None
    by_epoch: Annotated[Any, _TRACKER_OPTION] = True
    ignore_last: Annotated[Any, _TRACKER_OPTION] = True
    reset_flag: Annotated[Any, _TRACKER_OPTION] = False
    log_dir: Annotated[Any, _TRACKER_OPTION] = None
    init_kwargs: Annotated[Any, _TRACKER_OPTION] = None


class LogConfig(Words):
    """`log_config`."""

    interval: PositiveInt = 10
    hooks: tuple[LoggerHook, ...] = ()

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers beside our own log, by Accelerate's names."""
        return tuple(_TRACKERS[hook.type] for hook in self.hooks if hook.type in _TRACKERS)


class Runner(Words):
    """`runner`: newer mmcv's place for the number of epochs."""

    type: Literal["EpochBasedRunner"]
    max_epochs: PositiveInt
