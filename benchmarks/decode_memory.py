"""Resident memory of the processes that read videos, over many videos.

    python benchmarks/decode_memory.py --data demo/data/train --decodes 20000

One decoder process reads clips of the videos in random order, as in training; after every `--every` of them the memory
of this process and that of the decoder process are noted.
"""

import argparse
import time
from pathlib import Path

import av

from iwin.bench.machine import describe_machine
from iwin.bench.scripts import count, run
from iwin.data.annotations import read_class_folders
from iwin.data.batches import EpochBatches
from iwin.data.datasets import ClipReader, VideoDataset
from iwin.data.loader import BatchLoader
from iwin.data.sampling import FrameSampler
from iwin.files import check_writable, save_json
from iwin.transforms.geometry import Compose, Flip, RandomResizedCrop, Resize

STEPS = Compose((Resize(short_side=256), RandomResizedCrop(), Resize(size=(224, 224)), Flip()))


def resident(pid: int | str) -> float:
    """MiB of a process that are in memory, without files: its own, and its part of what it shares with others."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) / 1024


def decoder_process() -> int:
    """The process that decodes."""
    from multiprocessing import active_children

    (child,) = active_children()
    assert child.pid is not None
    return child.pid


def measure(folder: Path, *, decodes: int, every: int) -> list[dict[str, float]]:
    """Memory after every so many clips."""
    samples = read_class_folders(folder).samples
    dataset = VideoDataset(samples, ClipReader(FrameSampler(clip_len=16, frame_interval=2), STEPS))
    batches = EpochBatches(len(samples), batch_size=8)
    loader = BatchLoader(dataset, batches, training=True, num_workers=1)
    rows: list[dict[str, float]] = []
    done = epoch = 0
    while done < decodes:
        batches.begin(epoch)
        epoch += 1
        for batch in loader:
            if done // every != (done + len(batch)) // every:
                rows.append({"clips": done, "main_mib": resident("self"), "decoder_mib": resident(decoder_process())})
                print("{clips:7.0f}  main {main_mib:7.1f} MiB  decoder {decoder_mib:7.1f} MiB".format(**rows[-1]))
            done += len(batch)
    loader.close()
    return rows


def main() -> None:
    """Measure, print and optionally store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders of videos")
    parser.add_argument("--decodes", type=count, default=20_000)
    parser.add_argument("--every", type=count, default=700)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    if args.out:
        check_writable(args.out)
    rows = measure(args.data, decodes=args.decodes, every=args.every)
    if args.out:
        about = {
            "command": f"python benchmarks/decode_memory.py --data {args.data} --decodes {args.decodes}",
            "date": time.strftime("%Y-%m-%d"),
            "machine": describe_machine(),
            "av": av.__version__,
        }
        save_json(args.out, {**about, "rows": rows})


if __name__ == "__main__":
    run(main)
