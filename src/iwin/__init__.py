"""Video action recognition with the Iwin Transformer (arXiv 2507.18405)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iwin.build import create_model as create_model
    from iwin.data.decode import open_video as open_video
    from iwin.errors import IwinError as IwinError
    from iwin.models.zoo import list_models as list_models
    from iwin.predict import Predictor as Predictor

__version__ = "0.1.0"

_HOMES = {
    "IwinError": "iwin.errors",
    "Predictor": "iwin.predict",
    "create_model": "iwin.build",
    "list_models": "iwin.models.zoo",
    "open_video": "iwin.data.decode",
}

__all__ = ["IwinError", "Predictor", "__version__", "create_model", "list_models", "open_video"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `iwin --help` need not wait for PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'iwin' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
