from iwin.process import spare_cores

spare_cores()  # as the command line does, before PyTorch is imported

from tests.commands import trained  # noqa: E402
from tests.runs import class_folders  # noqa: E402

__all__ = ["class_folders", "trained"]
