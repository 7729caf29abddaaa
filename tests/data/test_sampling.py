import pickle
import re
from typing import Any

import numpy as np
import pytest

from iwin.data.sampling import FrameSampler
from iwin.errors import VideoError
from tests.goldens import generator, load_json, load_npz
from tests.sources import Golden, over_goldens

MISC = "data/sampleframes_misc.json"


def sampler_of(key: str, **settings: Any) -> FrameSampler:
    """The sampler of a golden case like "clip32_int2_n4_loop"."""
    match = re.match(r"clip(\d+)_int(\d+)_n(\d+)(?:_(loop|repeat_last))?", key)
    assert match
    clip_len, interval, clips, bound = match.groups(default="loop")
    return FrameSampler(
        clip_len=int(clip_len),
        frame_interval=int(interval),
        num_clips=int(clips),
        out_of_bound="repeat_last" if bound == "repeat_last" else "loop",
        **settings,
    )


@over_goldens
def test_test_mode_takes_the_original_frames(golden: Golden) -> None:
    arrays = load_npz(golden("data/sampleframes_test.npz"))
    totals = arrays.pop("totals")
    assert len(arrays) == 54
    for key, expected in arrays.items():
        sampler = sampler_of(key, test_mode=True)
        actual = np.stack([sampler(int(total)) for total in totals])
        np.testing.assert_array_equal(actual.reshape(len(totals), -1), expected, err_msg=key)


@over_goldens
def test_training_offsets_cover_the_original_range(golden: Golden) -> None:
    arrays = load_npz(golden("data/sampleframes_train_support.npz"))
    totals = arrays["totals"]
    rng = generator("support")
    for key in sorted({name.rsplit("_", 1)[0] for name in arrays} - {"totals"}):
        sampler = sampler_of(key)
        low, high, cases = (arrays[f"{key}_{what}"] for what in ("min", "max", "case"))
        for total, lowest, highest, case in zip(totals, low, high, cases, strict=True):
            draws = np.stack([sampler(int(total), rng)[:, 0] for _ in range(8)])
            assert (draws >= lowest).all(), (key, total)
            assert (draws <= highest).all(), (key, total)
            if case == 1:
                assert (np.diff(draws, axis=1) >= 0).all(), "clips that may overlap come in order"
            elif case in (2, 3):
                np.testing.assert_array_equal(lowest, highest)


@over_goldens
def test_training_offsets_reach_both_ends_of_the_original_range(golden: Golden) -> None:
    arrays = load_npz(golden("data/sampleframes_train_support.npz"))
    rng = generator("ends")
    checked = 0
    for key in ("clip32_int2_n1", "clip16_int1_n4", "clip8_int4_n10"):
        low, high, cases = (arrays[f"{key}_{what}"] for what in ("min", "max", "case"))
        for row in np.flatnonzero((cases == 0) & (np.ptp(high - low, axis=1) == 0) & ((high - low).max(axis=1) <= 5)):
            draws = np.stack([sampler_of(key)(int(arrays["totals"][row]), rng)[:, 0] for _ in range(120)])
            np.testing.assert_array_equal(draws.min(axis=0), low[row])
            np.testing.assert_array_equal(draws.max(axis=0), high[row])
            checked += 1
    assert checked >= 3


def test_training_offsets_are_uniform() -> None:
    sampler, rng = FrameSampler(clip_len=4, frame_interval=2, num_clips=1), generator("uniform offsets")
    offsets = np.array([sampler(17, rng)[0, 0] for _ in range(4000)])
    assert np.bincount(offsets, minlength=10) == pytest.approx([400] * 10, abs=80)


@over_goldens
def test_uniform_sampling_takes_the_original_frames(golden: Golden) -> None:
    arrays = load_npz(golden("data/sampleframes_uniform.npz"))
    rng = generator("uniform")
    for clip_len in (8, 16, 32):
        fixed = FrameSampler(clip_len=clip_len, uniform=True, test_mode=True)
        drawn = FrameSampler(clip_len=clip_len, uniform=True)
        expected, low, high = (arrays[f"clip{clip_len}_{what}"] for what in ("test", "train_min", "train_max"))
        actual = np.concatenate([fixed(int(total)) for total in arrays["totals"]])
        np.testing.assert_array_equal(actual, expected)
        draws = np.stack([np.concatenate([drawn(int(n), rng) for n in arrays["totals"]]) for _ in range(30)])
        assert (draws >= low).all()
        assert (draws <= high).all()
        narrow = high - low <= 2
        np.testing.assert_array_equal(draws.min(axis=0)[narrow], low[narrow])
        np.testing.assert_array_equal(draws.max(axis=0)[narrow], high[narrow])


@over_goldens
def test_start_index_counts_from_it(golden: Golden) -> None:
    misc = load_json(golden(MISC))
    for key, bound in (("start_index_1", "loop"), ("start_index_1_repeat_last", "repeat_last")):
        sampler = sampler_of(f"clip4_int2_n2_{bound}", test_mode=True, start_index=1)
        for total, expected in misc[key].items():
            assert sampler(int(total)).ravel().tolist() == expected


@over_goldens
def test_twice_sample_adds_the_segments_beginnings(golden: Golden) -> None:
    sampler = sampler_of("clip4_int2_n3", test_mode=True, twice_sample=True)
    for total, expected in load_json(golden(MISC))["twice_sample"].items():
        assert sampler(int(total)).ravel().tolist() == expected


@over_goldens
def test_uniform_sampling_gives_one_clip_and_says_so(golden: Golden) -> None:
    expected = load_json(golden(MISC))["uniform_num_clips_3"]["frame_inds"]
    with pytest.warns(UserWarning, match="without effect .*: num_clips$"):
        sampler = FrameSampler(clip_len=8, num_clips=3, uniform=True, test_mode=True, start_index=0)
    indices = sampler(20)
    assert indices.shape == (1, 8)
    assert indices.ravel().tolist() == expected


def test_jitter_moves_every_frame_within_the_interval() -> None:
    plain = FrameSampler(clip_len=8, frame_interval=4, num_clips=3, test_mode=True)
    jittered = FrameSampler(clip_len=8, frame_interval=4, num_clips=3, test_mode=True, temporal_jitter=True)
    rng = generator("jitter")
    moves = np.stack([jittered(200, rng) - plain(200) for _ in range(60)])
    assert set(moves.ravel()) == {0, 1, 2, 3}
    assert (np.ptp(moves, axis=0) == 3).all(), "every frame of every clip moves"
    assert (np.ptp(moves, axis=2) > 0).any(axis=0).all(), "the frames of a clip move independently"
    assert (np.ptp(moves, axis=1) > 0).any(axis=0).all(), "so do the same frames of other clips"


@pytest.mark.parametrize(
    "sampler",
    [
        FrameSampler(clip_len=8, frame_interval=3, num_clips=4, temporal_jitter=True, start_index=5),
        FrameSampler(clip_len=8, frame_interval=3, num_clips=4, temporal_jitter=True, test_mode=True, start_index=5),
        FrameSampler(clip_len=8, frame_interval=3, num_clips=4, out_of_bound="repeat_last", start_index=5),
        FrameSampler(clip_len=8, uniform=True, start_index=5),
        FrameSampler(clip_len=8, uniform=True, test_mode=True, start_index=5),
    ],
    ids=["train", "jitter in test mode", "repeat last", "uniform", "uniform in test mode"],
)
def test_every_index_is_a_frame_of_the_video(sampler: FrameSampler) -> None:
    rng = generator("bounds")
    for total in range(1, 80):
        indices = sampler(total, rng)
        assert indices.dtype == np.int64
        assert indices.shape == (sampler.num_clips, 8)
        assert indices.min() >= 5
        assert indices.max() < total + 5


def test_same_generator_state_same_frames() -> None:
    sampler = pickle.loads(pickle.dumps(FrameSampler(clip_len=8, num_clips=3)))
    np.testing.assert_array_equal(sampler(90, np.random.default_rng(4)), sampler(90, np.random.default_rng(4)))


def test_a_video_without_frames_is_an_error() -> None:
    with pytest.raises(VideoError, match="at least one frame"):
        FrameSampler(test_mode=True)(0)


def test_random_settings_need_a_generator() -> None:
    with pytest.raises(ValueError, match="numpy Generator"):
        FrameSampler()(10)


def test_settings_without_effect_are_named() -> None:
    with pytest.warns(UserWarning, match="without effect outside test mode: twice_sample$"):
        FrameSampler(twice_sample=True)
