import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before PyTorch is imported

from tests.commands import trained
from tests.runs import class_folders

__all__ = ["class_folders", "trained"]
