"""Split a lock file for a machine without CUDA: `python without_cuda.py torch|rest LOCK`, on standard output.

"torch" is PyTorch and torchvision, without hashes, for they come from PyTorch's CPU index as other files than PyPI's;
"rest" is everything else with its hashes, but for what only PyTorch's CUDA build needs.
"""

import re
import sys
from pathlib import Path

OTHER_FILES = re.compile(r"(torch|torchvision)==\S+")
ONLY_CUDA = re.compile(r"(cuda|nvidia)-|triton==")


def without_cuda(lock: str, part: str) -> str:
    """The requirements of a part, in the form of a lock file."""
    requirements = re.split(r"\n(?=\S)", lock.strip())  # the lines of hashes below a requirement are indented
    if part == "torch":
        return "\n".join(match[0] for requirement in requirements if (match := OTHER_FILES.match(requirement)))
    kept = [text for text in requirements if not OTHER_FILES.match(text) and not ONLY_CUDA.match(text)]
    return "\n".join(kept)


if __name__ == "__main__":
    sys.stdout.write(without_cuda(Path(sys.argv[2]).read_text(encoding="utf-8"), sys.argv[1]) + "\n")
