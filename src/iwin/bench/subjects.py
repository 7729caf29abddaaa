"""Making a variant ready to run: the model, its clips, and one pass or training step as a function."""

import importlib.util
import math
import sys
import timeit
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwin.bench.variants import PEERS, Variant
from iwin.errors import ConfigError
from iwin.models import block
from iwin.models.flops import model_cost
from iwin.models.native.common import infers
from iwin.models.recognizer import IwinRecognizer
from iwin.models.zoo import VIDEO_MODELS, build_named

CLASSES = 400


@dataclass(frozen=True)
class Job:
    """What a process measures.

    Attributes:
        variant: name of the variant.
        model: name of our model, whose size the reference has too.
        batch: clips at once.
        frames: frames of a clip of our model.
        height: rows of a frame.
        width: columns of a frame.
        train: a training step instead of a forward pass.
        device: "cpu" or "cuda".
    """

    variant: str
    model: str = "iwin_tiny"
    batch: int = 1
    frames: int = 32
    height: int = 224
    width: int = 224
    train: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Subject:
    """A variant, ready to run.

    Attributes:
        step: one pass or training step; gives the logits (B, K), or the loss.
        first: the same in as little memory as the variant can: the reference takes its clips one by one, so that it can
            say what is right even where all at once do not fit.
        clips: clips of a pass.
        macs: multiply-adds of a clip's forward pass.
        model: the model that a training step trains; None in inference.
    """

    step: Callable[[], Tensor]
    first: Callable[[], Tensor]
    clips: int
    macs: int
    model: nn.Module | None = None

    @property
    def gradients(self) -> Tensor:
        """All gradients of the last training step as one vector, in the order of the parameters' names."""
        assert self.model is not None
        named = sorted(self.model.named_parameters(), key=lambda item: item[0])
        return torch.cat([p.grad.flatten().float().cpu() for _, p in named if p.grad is not None])


def build_subject(variant: Variant, job: Job) -> Subject:
    """Make a variant ready.

    Raises:
        ConfigError: if there is no such model.
    """
    if variant.family == "matmul":
        return matmul(variant, job)
    torch.manual_seed(0)
    if variant.how == "sdpa":
        block.FUSED_ATTENTION = ()
    frames, height, width = clip_shape(variant, job)
    clips = torch.randn(job.batch, 3, frames, height, width)
    model, macs = build_model(variant, job)
    model = model.to(job.device).train(job.train)
    clips = clips.to(job.device)
    if variant.precision == "bf16-cast":
        model, clips = model.bfloat16(), clips.bfloat16()
    if variant.how in ("compiled", "cudagraphs"):
        model.compile(mode="reduce-overhead" if variant.how == "cudagraphs" else None)
    if job.train:
        return training(variant, job, model, clips, macs)
    run = runtime(variant, model, clips)

    def forward(size: int = job.batch) -> Tensor:
        with torch.inference_mode(), autocast(variant, job.device):
            return torch.cat([run(part) for part in clips.split(size)]) if size < job.batch else run(clips)

    return Subject(forward, partial(forward, first_size(variant, job)), job.batch, macs)


def training(variant: Variant, job: Job, model: nn.Module, clips: Tensor, macs: int) -> Subject:
    """A step of AdamW, as `iwin train` has it; nothing in the model is random, so that all have the same gradients."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    labels = torch.arange(job.batch, device=job.device) % CLASSES

    def step(size: int = job.batch) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=job.device)
        for part, targets in zip(clips.split(size), labels.split(size), strict=True):
            with autocast(variant, job.device):
                logits = model(part)
            loss = F.cross_entropy(logits.float(), targets) * (len(part) / job.batch)
            loss.backward()
            total += loss.detach()
        optimizer.step()
        return total

    return Subject(step, partial(step, first_size(variant, job)), job.batch, macs, model)


def first_size(variant: Variant, job: Job) -> int:
    """Clips that go through the model together in `Subject.first`."""
    return 1 if variant.family == "reference" else job.batch


def clip_shape(variant: Variant, job: Job) -> tuple[int, int, int]:
    """Frames, height and width of a variant's clips: a peer's own."""
    if variant.family == "peer":
        frames, side, _ = PEERS[variant.model]
        return frames, side, side
    return job.frames, job.height, job.width


def build_model(variant: Variant, job: Job) -> tuple[nn.Module, int]:
    """The model of a variant and the multiply-adds of a clip."""
    frames, height, width = clip_shape(variant, job)
    if variant.family == "peer":
        return build_peer(variant.model), count_macs(variant.model, (1, 3, frames, height, width))
    if job.model not in VIDEO_MODELS:
        raise ConfigError(f"there is no video model {job.model}; choose one of {', '.join(VIDEO_MODELS)}")
    checkpointed = variant.how == "checkpointed"
    ours = build_named(job.model, num_frames=frames, drop_path_rate=0.0, dropout=0.0, use_checkpoint=checkpointed)
    assert isinstance(ours, IwinRecognizer)
    fill(ours)
    macs = model_cost(ours, frames=frames, height=height, width=width).macs
    if variant.family == "iwin":
        return ours, macs
    plain = load_reference().ReferenceRecognizer(**vars(VIDEO_MODELS[job.model]), num_frames=frames)
    plain.load_state_dict(ours.state_dict())
    return plain, macs


def fill(model: nn.Module) -> None:
    """Weights of a trained model's size, so that equality means something: fresh ones give logits near 0."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("embed"):
            value = 0.2 * noise
        elif parameter.ndim > 1:
            value = noise / math.sqrt(math.prod(parameter.shape[1:]))
        else:
            value = 0.1 * noise + (1 if "norm" in name and name.endswith("weight") else 0)
        parameter.data.copy_(value)


def load_reference() -> Any:
    """benchmarks/reference.py, of the source checkout or as the wheel carries it, as a module."""
    package = Path(__file__).parent
    for path in (package / "reference.py", package.parents[2] / "benchmarks" / "reference.py"):
        if path.exists():
            spec = importlib.util.spec_from_file_location("iwin_reference", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
            return module
    raise ConfigError(
        "the plain model, benchmarks/reference.py, is neither in this package nor in a checkout around it"
    )


def build_peer(name: str) -> nn.Module:
    """A model of other authors with fresh weights."""
    if name == "videomae_b":
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification

        return _LogitsOf(VideoMAEForVideoClassification(VideoMAEConfig(num_labels=CLASSES)))
    import torchvision

    return getattr(torchvision.models.video, name)()


class _LogitsOf(nn.Module):
    """A model of transformers that takes clips (B, 3, T, H, W) and gives logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor) -> Tensor:
        return self.model(clips.transpose(1, 2)).logits


def count_macs(name: str, shape: tuple[int, ...]) -> int:
    """Multiply-adds of a peer, counted by PyTorch's counter, attention products included."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model, clips = build_peer(name).eval(), torch.empty(shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clips)
    return counter.get_total_flops() // 2


def autocast(variant: Variant, device: str) -> AbstractContextManager[Any]:
    """Mixed precision, as the engine has it."""
    if variant.precision not in ("bf16", "fp16") or variant.how == "openvino":
        return nullcontext()
    return torch.autocast(device, torch.bfloat16 if variant.precision == "bf16" else torch.float16)


def runtime(variant: Variant, model: nn.Module, clips: Tensor) -> Callable[[Tensor], Tensor]:
    """The model as it is, or in a runtime that it is exported to."""
    model.eval()
    if variant.how == "exported":
        return torch.export.export(model, (clips,)).module()
    if variant.how == "onnxruntime":
        return onnx_runtime(model, clips)
    if variant.how == "openvino":
        return openvino(variant, model, clips)
    return model


def onnx_runtime(model: nn.Module, clips: Tensor) -> Callable[[Tensor], Tensor]:
    """ONNX Runtime on the CPU; its threads do not spin, for the other processes' sake."""
    import io

    import onnxruntime

    buffer = io.BytesIO()
    program = torch.onnx.export(model, (clips,), dynamo=True, verbose=False)
    assert program is not None
    buffer.write(program.model_proto.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def openvino(variant: Variant, model: nn.Module, clips: Tensor) -> Callable[[Tensor], Tensor]:
    """OpenVINO on the CPU."""
    import openvino as ov

    converted = ov.convert_model(torch.export.export(model, (clips,)))
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if variant.precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = ov.Core().compile_model(converted, "CPU", settings)
    return lambda x: torch.from_numpy(compiled(x.numpy())[0])


def matmul(variant: Variant, job: Job) -> Subject:
    """A square matrix product: what the machine can do at most.

    On CPUs the faster of PyTorch's two ways is taken, its default (MKL's in fp32) and oneDNN's.
    """
    side = 8192 if job.device == "cuda" else 2048
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[variant.precision]
    a, b = (torch.randn(side, side, device=job.device).to(dtype) for _ in range(2))

    def plain() -> Tensor:
        with torch.inference_mode():
            return a @ b

    def onednn() -> Tensor:
        with torch.inference_mode():
            return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")

    with torch.inference_mode():
        ways = (plain, onednn) if infers(a) else (plain,)
    step = min(ways, key=seconds)
    return Subject(step, step, 1, side**3)


def seconds(step: Callable[[], Tensor]) -> float:
    """The fastest of three passes."""
    return min(timeit.repeat(step, number=1, repeat=4)[1:])
