"""Which operators a model calls."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Calls(TorchDispatchMode):
    """Counts operators by name, as in "iwin::window_attention"."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))


def calls_when_compiled(module: nn.Module, x: Tensor) -> Counter[str]:
    """What the one graph that `torch.compile` makes of a module calls, by the functions' names."""
    counts: Counter[str] = Counter()

    def backend(graph: Any, _inputs: Any) -> Any:
        counts.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch.compile(module, backend=backend, fullgraph=True, dynamic=False)(x)
    return counts
