import os

if "OMP_WAIT_POLICY" not in os.environ:  # as the command line does, before PyTorch is imported
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}

from tests.commands import trained
from tests.runs import class_folders

__all__ = ["class_folders", "trained"]
