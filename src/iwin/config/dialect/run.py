"""Upstream's words for a whole config file, and the way from them to a `RunConfig`."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, NonNegativeInt, PositiveInt

from iwin.config import schema
from iwin.config.dialect.data import SPLITS, Data
from iwin.config.dialect.model import CrossEntropyLoss, Recognizer3D
from iwin.config.dialect.training import (
    AnyHook,
    AnyLrConfig,
    AnyOptimizer,
    CheckpointConfig,
    Evaluation,
    FixedLr,
    Fp16,
    LogConfig,
    OptimizerHook,
    Runner,
    StepLr,
)
from iwin.config.dialect.words import NoEffect, Problem, Words


def _refused(why: str) -> AfterValidator:
    """Makes a key an error, with the reason, unless it is empty."""

    def check(value: Any) -> Any:
        if value:
            raise ValueError(why)
        return value

    return AfterValidator(check)


NotOffered = Annotated[Any, _refused("is mmcv's, but not offered here; leave it out")]
PartOfModel = Annotated[Any, _refused("belongs inside model = dict(...)")]
NewLayout = Annotated[Any, _refused("is mmaction2 1.x; only the words of mmaction2 0.x are read here")]

_LAUNCHER_DECIDES = NoEffect("the launcher and the command line decide")


class Run(Words):
    """A config file. Names beyond these are the file's own variables."""

    model_config = ConfigDict(extra="ignore")

    model: Recognizer3D
    data: Data = Data()

    optimizer: AnyOptimizer | None = None
    optimizer_config: AnyHook = OptimizerHook()
    fp16: Fp16 | None = None
    lr_config: AnyLrConfig = FixedLr()
    total_epochs: PositiveInt | None = None
    runner: Runner | None = None

    evaluation: Evaluation = Evaluation()
    checkpoint_config: CheckpointConfig | None = None
    log_config: LogConfig = LogConfig()
    work_dir: str | None = None
    load_from: str | None = None
    resume_from: str | None = None

    workflow: tuple[tuple[str, int], ...] = (("train", 1),)
    seed: NonNegativeInt | None = None
    deterministic: bool = False
    find_unused_parameters: bool = False

    dist_params: Annotated[Any, _LAUNCHER_DECIDES] = None
    gpu_ids: Annotated[Any, _LAUNCHER_DECIDES] = None
    log_level: Annotated[Any, _LAUNCHER_DECIDES] = None
    cudnn_benchmark: Annotated[Any, _LAUNCHER_DECIDES] = None
    opencv_num_threads: Annotated[Any, _LAUNCHER_DECIDES] = None
    mp_start_method: Annotated[Any, _LAUNCHER_DECIDES] = None

    train_cfg: PartOfModel = None
    test_cfg: PartOfModel = None
    custom_imports: NotOffered = None
    custom_hooks: NotOffered = None
    module_hooks: NotOffered = None
    momentum_config: NotOffered = None
    omnisource: NotOffered = None
    precise_bn: NotOffered = None
    default_scope: NewLayout = None
    optim_wrapper: NewLayout = None
    param_scheduler: NewLayout = None
    train_dataloader: NewLayout = None

    def contradictions(self) -> Iterator[Problem]:
        """Keys that cannot both be meant, and keys that others need."""
        yield from self.model.contradictions()
        yield from self.data.contradictions()
        if self.optimizer and not self.epochs:
            yield Problem(("total_epochs",), "is missing, though there is an optimizer")
        if not self.micro_batch:
            message = f"is too small for optimizer_config.update_interval={self.optimizer_config.accumulation}"
            yield Problem(("data", "videos_per_gpu"), message)
        head = self.model.cls_head
        for name in SPLITS:
            if (split := self.data.dataset(name)) and split.multi_class != head.multi_class:
                message = f"is {split.multi_class}, but model.cls_head.multi_class is {head.multi_class}"
                yield Problem(("data", name, "multi_class"), message)
        if head.multi_class and isinstance(head.loss_cls, CrossEntropyLoss):
            message = "is for one label a video; several (multi_class=True) need dict(type='BCELossWithLogits')"
            yield Problem(("model", "cls_head", "loss_cls"), message)

    def remarks(self) -> Iterator[str]:
        """What is worth saying about settings that are understood."""
        head = self.model.cls_head
        if head.label_smooth_eps and not head.multi_class:
            yield "model.cls_head.label_smooth_eps smooths labels here; upstream ignores it unless multi_class=True"
        if self.workflow != (("train", 1),):
            yield f"workflow {self.workflow} has no effect here: evaluation.interval decides when to validate"
        if self.model.test_cfg and self.model.test_cfg.average_clips is None:
            yield "model.test_cfg.average_clips=None: a video has one score, the mean of its views' softmax ('prob')"
        batch, used = self.data.videos_per_gpu, self.micro_batch * self.optimizer_config.accumulation
        if used < batch and not self.data.train_dataloader.videos_per_gpu:
            parts = self.optimizer_config.accumulation
            yield f"data.videos_per_gpu {batch} in {parts} equal micro-batches: {used} videos are used for each step"
        for name in ("val", "test"):
            if (dataset := self.data.dataset(name)) and not dataset.has_fixed_clips:
                yield f"data.{name} samples its clips at random: its SampleFrames has no test_mode=True"
        missing = [key for key in ("optimizer", "lr_config") if key not in self.model_fields_set]
        if self.data.train and missing:
            yield f"the config has no {' and no '.join(missing)}: training would use our defaults"

    @property
    def epochs(self) -> int | None:
        """Length of the run, from either of its places."""
        return self.runner.max_epochs if self.runner else self.total_epochs

    @property
    def micro_batch(self) -> int:
        """Videos that a device sees at once in training."""
        own = self.data.train_dataloader.videos_per_gpu
        return own or self.optimizer_config.micro_batch(self.data.videos_per_gpu)

    def settings(self) -> schema.RunConfig:
        """The run in our words."""
        defaults = schema.RunConfig()
        checkpoints = self.checkpoint_config or CheckpointConfig()
        return schema.RunConfig(
            model=self.model.settings(),
            data=self.data.settings(train_batch=self.micro_batch * self.optimizer_config.accumulation),
            blending=self.model.blending.settings() if self.model.blending else None,
            optim=self._optim(),
            schedule=self._schedule(self.epochs or defaults.epochs),
            evaluation=self.evaluation.settings(multi_class=self.model.cls_head.multi_class),
            test=self.model.test_settings(),
            epochs=self.epochs or defaults.epochs,
            work_dir=self.work_dir,
            checkpoint_interval=checkpoints.interval,
            keep_checkpoints=checkpoints.keep,
            log_interval=self.log_config.interval,
            trackers=self.log_config.trackers,
            load_from=self.load_from,
            resume_from=self.resume_from,
            seed=self.seed or 0,
            deterministic=self.deterministic,
            find_unused_parameters=self.find_unused_parameters,
        )

    def _optim(self) -> schema.OptimSettings:
        hook = self.optimizer_config
        own = self.optimizer.settings() if self.optimizer else {}
        return schema.OptimSettings(
            accumulation=hook.accumulation,
            grad_clip=hook.grad_clip.max_norm if hook.grad_clip else None,
            mixed_precision=hook.mixed_precision or self.fp16 is not None,
            **own,
        )

    def _schedule(self, epochs: int) -> schema.ScheduleSettings:
        steps = self.lr_config.steps(epochs=epochs) if isinstance(self.lr_config, StepLr) else ()
        return schema.ScheduleSettings(steps=steps, **self.lr_config.settings())
