from tests.commands import trained
from tests.runs import class_folders

__all__ = ["class_folders", "trained"]
