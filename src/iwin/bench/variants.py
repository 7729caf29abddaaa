"""What can be compared: our model in every way to run it, the plain reference, and models of other authors."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from iwin.errors import ConfigError, did_you_mean

Family = Literal["iwin", "reference", "peer", "matmul"]
Precision = Literal["fp32", "bf16", "bf16-cast", "fp16"]


@dataclass(frozen=True)
class Variant:
    """One way to run one model.

    Attributes:
        name: the name on the command line and in the results.
        family: our model, the plain reference, a model of other authors, or a bare matrix product.
        precision: "bf16" and "fp16" are autocast, as `iwin train` and `iwin test` have it; "bf16-cast" has weights and
            clips in bf16.
        how: "eager", "sdpa" (the same without our own attention kernels), "compiled" (torch.compile), "cudagraphs" (the
            same, mode reduce-overhead), "checkpointed" (gradients recomputed block by block),
            "kept-memory" (in a process that keeps what is freed, as `iwin train` does), "exported" (torch.export),
            "onnxruntime" or "openvino".
        model: name of a peer.
        needs: packages that must be installed.
        devices: where it can run.
    """

    name: str
    family: Family
    precision: Precision = "fp32"
    how: str = "eager"
    model: str = ""
    needs: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")

    @property
    def trains(self) -> bool:
        """Whether a training step can be measured."""
        ways = ("eager", "sdpa", "compiled", "checkpointed", "kept-memory")
        return self.how in ways and self.precision != "bf16-cast"

    @property
    def keeps_memory(self) -> bool:
        """Whether it takes memory once and never gives it back, so that a later pass does not show it."""
        return self.how in ("kept-memory", "onnxruntime", "openvino", "cudagraphs")

    @property
    def missing(self) -> str:
        """The packages that it needs and that are not installed, and how to install them."""
        packages = [package for package in self.needs if find_spec(package) is None]
        return f"{', '.join(packages)}: pip install 'iwin[bench]'" if packages else ""


PEERS = {
    "swin3d_t": (16, 224, "torchvision"),
    "mvit_v2_s": (16, 224, "torchvision"),
    "videomae_b": (16, 224, "transformers"),
}
"""Models of other authors: frames and side of the clips that they are made for, and the package that has them."""

VARIANTS = (
    Variant("reference-fp32", "reference"),
    Variant("reference-bf16", "reference", "bf16"),
    Variant("reference-bf16-cast", "reference", "bf16-cast"),
    Variant("reference-fp16", "reference", "fp16", devices=("cuda",)),
    Variant("fp32", "iwin"),
    Variant("bf16", "iwin", "bf16"),
    Variant("bf16-cast", "iwin", "bf16-cast"),
    Variant("fp16", "iwin", "fp16", devices=("cuda",)),
    Variant("fp32-sdpa", "iwin", how="sdpa"),
    Variant("bf16-sdpa", "iwin", "bf16", how="sdpa"),
    Variant("bf16-cast-sdpa", "iwin", "bf16-cast", how="sdpa"),
    Variant("fp32-compiled", "iwin", how="compiled"),
    Variant("bf16-compiled", "iwin", "bf16", how="compiled"),
    Variant("bf16-cast-compiled", "iwin", "bf16-cast", how="compiled"),
    Variant("bf16-cudagraphs", "iwin", "bf16-cast", how="cudagraphs", devices=("cuda",)),
    Variant("fp32-checkpointed", "iwin", how="checkpointed"),
    Variant("bf16-checkpointed", "iwin", "bf16", how="checkpointed"),
    Variant("fp32-kept-memory", "iwin", how="kept-memory", devices=("cpu",)),
    Variant("bf16-kept-memory", "iwin", "bf16", how="kept-memory", devices=("cpu",)),
    Variant("fp32-exported", "iwin", how="exported"),
    Variant("fp32-onnxruntime", "iwin", how="onnxruntime", needs=("onnxruntime", "onnxscript"), devices=("cpu",)),
    Variant("fp32-openvino", "iwin", how="openvino", needs=("openvino",), devices=("cpu",)),
    Variant("bf16-openvino", "iwin", "bf16", how="openvino", needs=("openvino",), devices=("cpu",)),
    *(
        Variant(f"{model}-{precision}", "peer", precision, model=model, needs=(package,))
        for model, (_, _, package) in PEERS.items()
        for precision in ("fp32", "bf16")
    ),
    Variant("matmul-fp32", "matmul"),
    Variant("matmul-bf16", "matmul", "bf16"),
    Variant("matmul-fp16", "matmul", "fp16", devices=("cuda",)),
)

DEFAULT = {
    "cpu": ("reference-fp32", "reference-bf16", "reference-bf16-cast", "fp32", "bf16", "bf16-cast"),
    "cuda": (
        "reference-bf16",
        "reference-bf16-cast",
        "reference-fp16",
        "fp32",
        "bf16",
        "bf16-cast",
        "bf16-sdpa",
        "fp16",
        "bf16-compiled",
        "bf16-cudagraphs",
    ),
}
"""What is measured where no variants are named; for training, those of them that train. The reference in fp32, which
would not fit a GPU with many clips, says there what is right one clip after the other, and is not timed."""

GROWTH = ("reference-fp32", "fp32", "bf16")
"""The same where growth is asked for, which takes a process a variant for each of many sizes."""


def find_variant(name: str) -> Variant:
    """The variant of a name.

    Raises:
        ConfigError: there is none.
    """
    for variant in VARIANTS:
        if variant.name == name:
            return variant
    names = [variant.name for variant in VARIANTS]
    raise ConfigError(f"there is no variant {name}{did_you_mean(name, names) or f'; there are {chr(32).join(names)}'}")


def baseline(variant: Variant) -> str | None:
    """The reference that a variant of ours is measured against: the one of its precision."""
    return f"reference-{variant.precision}" if variant.family == "iwin" else None
