"""Write a small data set of real video files: one moving disc a clip, the class is what it does.

    python examples/make_demo_data.py demo/data

makes demo/data/{train,val}/{fall,grow,rise,shrink,still}/<number>.mp4 (H.264). One frame hardly tells the classes
apart, so a model has to look at the motion. The files are the same on every run.
"""

import argparse
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

SIDE = 96
FRAMES = 40
CLASSES = ("fall", "grow", "rise", "shrink", "still")


def clip(label: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Frames (T, H, W, 3) of a disc that falls, grows, rises, shrinks or stays."""
    begin, end = rng.uniform(0.15, 0.35), rng.uniform(0.65, 0.85)
    course = np.linspace(begin, end, FRAMES) if label in ("fall", "grow") else np.linspace(end, begin, FRAMES)
    middle = np.full(FRAMES, rng.uniform(0.3, 0.7))
    height = course if label in ("fall", "rise") else middle
    radius = course / 2 if label in ("grow", "shrink") else np.full(FRAMES, rng.uniform(0.1, 0.35))
    colour, background = rng.uniform(170, 255, 3), rng.uniform(0, 85, 3)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    distance = np.hypot(y - height[:, None, None], x - rng.uniform(0.3, 0.7))
    inside = np.clip((radius[:, None, None] - distance) * SIDE, 0, 1)[..., None]
    noise = rng.normal(0, 12, (SIDE, SIDE, 3))
    return np.clip(inside * colour + (1 - inside) * background + noise, 0, 255).astype(np.uint8)


def write(path: Path, frames: npt.NDArray[np.uint8]) -> None:
    """Encode frames as an H.264 file of 25 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        # At a constant quantizer, x264 looks at no memory that was never written: the same bytes on every run.
        stream = container.add_stream("libx264", rate=25, options={"qp": "23"})
        stream.thread_count = 1
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    """Write both splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write, such as demo/data")
    parser.add_argument("--train", type=int, default=32, metavar="N", help="training clips a class (default 32)")
    parser.add_argument("--val", type=int, default=8, metavar="N", help="validation clips a class (default 8)")
    args = parser.parse_args()
    for split, (name, count) in enumerate({"train": args.train, "val": args.val}.items()):
        for label, kind in enumerate(CLASSES):
            for number in range(count):
                rng = np.random.default_rng([split, label, number])
                write(args.folder / name / kind / f"{number:03}.mp4", clip(kind, rng))
    print(f"{args.folder}: {len(CLASSES)} classes, {args.train} + {args.val} clips each")


if __name__ == "__main__":
    main()
