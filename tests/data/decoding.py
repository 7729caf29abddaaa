"""Videos of every kind, and what their decoding is compared with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from iwin.data.decode import Video, open_video
from tests.videos import (
    decode_all,
    read_number,
)

COUNT = 40
OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:b-adapt=0"}
OPEN_GOP_265 = {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:keyint=12:min-keyint=12:bframes=3"}

VIDEOS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264_bframes.mp4": {"bframes": 3},
    "h264_bframes.mkv": {"bframes": 3},
    "h264_bframes.mov": {"bframes": 3},
    "h264_bframes.avi": {"bframes": 2},  # FFmpeg guesses presentation times, wrongly
    "h264_bframes.ts": {"bframes": 2},  # no frame count, times start late
    "h264_bframes.h264": {"bframes": 2},  # no times, no frame count, no seeking
    "h264_long_gop.mp4": {"gop": 250, "bframes": 3},
    "h264_open_gop.mp4": {"bframes": 3, "options": OPEN_GOP},
    "h264_open_gop.mkv": {"bframes": 3, "options": OPEN_GOP},
    "h264_intra_refresh.mp4": {"bframes": 0, "options": {"x264-params": "intra-refresh=1:keyint=12"}},
    "h264_interlaced.mp4": {"bframes": 2, "options": {"x264-params": "tff=1"}},
    "h264_bframes.flv": {"bframes": 2},
    "h264_2000_fps.mkv": {"fps": 2000},  # Matroska rounds to milliseconds: two frames share a time
    "h264_10_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "h264_444.mkv": {"pix_fmt": "yuv444p"},
    "h264_sound.mp4": {"audio": True},
    "h264_sound.mkv": {"audio": True},
    "h264_fragments.mp4": {"bframes": 2, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264_variable_rate.mp4": {"bframes": 2, "pts": [t * 40 + t % 3 * 11 for t in range(COUNT)]},
    "hevc_open_gop.mp4": {"codec": "libx265", "options": OPEN_GOP_265},
    "hevc_open_gop.mkv": {"codec": "libx265", "options": OPEN_GOP_265},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "8", "crf": "10"}},
    "mpeg4.avi": {"codec": "mpeg4", "bframes": 0},
    "mpeg4_bframes.avi": {"codec": "mpeg4", "bframes": 2},
    "mpeg4_bframes.mkv": {"codec": "mpeg4", "bframes": 2},
    "mpeg4_gaps.avi": {"codec": "mpeg4", "bframes": 0, "pts": [t * 40 + 200 * (t > 20) for t in range(COUNT)]},
    "mpeg2.mpg": {"codec": "mpeg2video", "bframes": 2},  # seeks land anywhere
    "mpeg2.ts": {"codec": "mpeg2video", "bframes": 2},
    "mpeg2_short_gop.ts": {"codec": "mpeg2video", "bframes": 2, "gop": 3},  # seeks by time land a keyframe too late
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "wmv.wmv": {"codec": "wmv2"},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "ffv1.mkv": {"codec": "ffv1"},
}

# From the end to the start, over keyframes, with repeats, far apart, side by side, alone.
ORDERS = ([39, 3, 3, 20, 0], [0, 13, 26, 39], [11, 12, 13], [24], [5, 30], range(1, 40, 4), [39, 38], [23], [37])


def assert_same_frames(path: Path, reference: torch.Tensor | None = None) -> None:
    """Every access order gives the pictures of the plain decode, to the last bit, and none is called damaged."""
    if reference is None:
        reference = decode_all(path)
    count = len(reference)
    with open_video(path) as video:
        assert video.num_frames == count
        assert (video.height, video.width) == reference.shape[1:3]
        for order in ([i % count for i in order] for order in ORDERS):
            frames = video.get_frames(order)
            assert frames.dtype == torch.uint8
            assert frames.is_contiguous()
            assert torch.equal(frames, reference[order]), order
        assert torch.equal(video.get_frames(range(count)), reference)
    for alone in (count - 1, count // 2):
        with open_video(path, strict=True) as video:
            assert torch.equal(video.get_frames([alone]), reference[[alone]])
            for order in ([i % count for i in order] for order in ORDERS):
                video.get_frames(order)
            video.get_frames(range(count))


def numbers(video: Video) -> list[int]:
    return [read_number(frame) for frame in video.get_frames(range(video.num_frames))]


def index_of(video: Video) -> Any:
    """The index of the reader behind a video."""
    return video._reader._index  # type: ignore[attr-defined]


def count_calls(calls: list[None], function: Callable[..., Any]) -> Callable[..., Any]:
    def counting(*args: Any) -> Any:
        calls.append(None)
        return function(*args)

    return counting
