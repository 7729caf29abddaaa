"""Write the compact golden subset beside this file from the whole golden set.

    python tests/golden/make_subset.py ../shared/golden

Each part has one function, (folder of the whole set, folder of the subset) -> None, listed in PARTS. Arrays keep their
names, so the same test reads the subset and the whole set; what is left out is rows, cases and sample positions, never
precision.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


def read_npz(path: Path) -> Arrays:
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def write_npz(path: Path, arrays: Arrays) -> None:
    np.savez_compressed(path, allow_pickle=False, **arrays)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def some_rows(path: Path, target: Path, keep: npt.NDArray[np.bool_]) -> None:
    """The chosen rows of every array; rows are video lengths, named by the array `totals`."""
    write_npz(target, {key: value[keep] for key, value in read_npz(path).items()})


def sampling(full: Path, subset: Path) -> None:
    """Video lengths: every sixth (uniform: every eighth) and those around the length of a clip."""
    borders = [1, 2, *(n + d for n in (8, 16, 32, 64, 128) for d in (-1, 0, 1)), 300, 1001]
    for name, step in (("test", 6), ("train_support", 6), ("uniform", 8)):
        path = full / f"sampleframes_{name}.npz"
        totals = read_npz(path)["totals"]
        keep = np.isin(totals, borders) | (np.arange(totals.size) % step == 0)
        some_rows(path, subset / path.name, keep)
    write_json(subset / "sampleframes_misc.json", json.loads((full / "sampleframes_misc.json").read_text()))


def geometry(full: Path, subset: Path) -> None:
    """Everything, but of the pipelines a sixth of the sample positions."""
    names = ("resize", "crops", "random_resized_crop", "random_erasing", "format_flip", "normalize", "pipelines")
    for name in names:
        write_json(subset / f"{name}.json", json.loads((full / f"{name}.json").read_text()))
    for name in ("resize_pixels", "normalize"):
        write_npz(subset / f"{name}.npz", read_npz(full / f"{name}.npz"))
    pipelines = read_npz(full / "pipelines.npz")
    sampled = {key: value[::6] if key.endswith(("|idx", "|val")) else value for key, value in pipelines.items()}
    write_npz(subset / "pipelines.npz", sampled)


def mixing(full: Path, subset: Path) -> None:
    """All losses and mixed labels; of the mixed clips, which do not know smoothing, one for each share and kind."""
    for name in ("blending", "losses"):
        write_json(subset / f"{name}.json", json.loads((full / f"{name}.json").read_text()))
    write_npz(subset / "losses.npz", read_npz(full / "losses.npz"))
    left_out = ("mixup_sm0.1", "_c0-0|imgs", "_lam0.0_c5-4|imgs", "_lam0.3_c9-7|imgs", "_lam0.75_c9-7|imgs")
    blending = {
        key: value
        for key, value in read_npz(full / "blending.npz").items()
        if not (key.endswith("|imgs") and any(part in key for part in left_out))
    }
    write_npz(subset / "blending.npz", blending)


def metrics(full: Path, subset: Path) -> None:
    """Without the two largest cases and without what belongs to metrics that this project does not have."""
    left_out = ("noties_", "weighted|", "softmax|")
    arrays = {
        key: value
        for key, value in read_npz(full / "metrics.npz").items()
        if not key.startswith(left_out) and "|argsort_" not in key
    }
    write_npz(subset / "metrics.npz", arrays)
    write_json(subset / "metrics.json", json.loads((full / "metrics.json").read_text()))


def optimisation(full: Path, subset: Path) -> None:
    """Everything: small as it is."""
    write_npz(subset / "lr.npz", read_npz(full / "lr.npz"))
    for name in ("lr", "param_groups"):
        write_json(subset / f"{name}.json", json.loads((full / f"{name}.json").read_text()))


def data_part(full: Path, subset: Path) -> None:
    """The pure functions' numbers: sampling, geometry, mixing, metrics, optimisation."""
    for part in (sampling, geometry, mixing, metrics, optimisation):
        part(full / "data", subset / "data")


def thin(arrays: Arrays, limit: int) -> Arrays:
    """No more than about `limit` values of every array, at evenly spread positions that "<key>#idx" names."""
    thinned = {}
    for key, value in arrays.items():
        if key.endswith("#idx"):
            continue
        index = arrays.get(f"{key}#idx")
        step = -(-value.size // limit)
        if index is None and step == 1:
            thinned[key] = value
        else:
            thinned[key] = value.reshape(-1)[::step]
            thinned[f"{key}#idx"] = (np.arange(value.size, dtype=np.int32) if index is None else index)[::step]
    return thinned


def model_part(full: Path, subset: Path) -> None:
    """Names and shapes of nano and T, all cases with a few hundred values of each tensor, all gradient norms."""
    small = ("flops", "grads_nano", "inflate_nano", "keys_T", "keys_nano", "misc", "modules", "multiview_nano")
    for name in (
        *small,
        "cliplen_window_nano",
        "cls2d_outputs",
        "interleave_maps",
        "outputs_T",
        "outputs_nano",
        "rule_check",
    ):
        write_json(subset / f"model/{name}.json", json.loads((full / f"model/{name}.json").read_text()))
    for name in ("cliplen_window_nano", "grads_nano", "inflate_nano", "multiview_nano", "modules"):
        write_npz(subset / f"model/{name}.npz", thin(read_npz(full / f"model/{name}.npz"), 400))
    for name in ("outputs_T", "outputs_nano", "cls2d_outputs"):
        write_npz(subset / f"model/{name}.npz", thin(read_npz(full / f"model/{name}.npz"), 200))
    write_npz(subset / "model/interleave_maps.npz", read_npz(full / "model/interleave_maps.npz"))


PARTS: dict[str, Callable[[Path, Path], None]] = {"data": data_part, "model": model_part}
"""Folder of the subset -> the function that fills it."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the compact golden subset from the whole golden set.")
    parser.add_argument("full", type=Path, help="folder of the whole golden set")
    full = parser.parse_args().full
    subset = Path(__file__).parent
    for folder, write in PARTS.items():
        (subset / folder).mkdir(exist_ok=True)
        write(full, subset)


if __name__ == "__main__":
    main()
