import pytest

from iwin.data.bad_videos import BadVideo, BadVideos, Policy


def bad_videos(count: int, size: int, *, policy: Policy = "resample", max_share: float = 0.01) -> BadVideos:
    videos = BadVideos(size, policy=policy, max_share=max_share)
    for number in range(count):
        videos.add(BadVideo(f"{number}.mp4", f"{number}.mp4: no frame can be decoded"))
    return videos


@pytest.mark.parametrize(("size", "limit"), [(1, 1), (40, 1), (199, 1), (200, 2), (700, 7), (240_000, 2400)])
def test_a_share_may_be_bad_and_in_small_splits_one(size: int, limit: int) -> None:
    assert bad_videos(0, size).limit == limit
    assert not bad_videos(limit, size).exceeded
    assert bad_videos(limit + 1, size).exceeded


def test_none_may_be_bad_where_that_is_asked_for() -> None:
    assert bad_videos(0, 1000, policy="error").limit == 0
    assert bad_videos(0, 1000, max_share=0.0).limit == 0
    assert bad_videos(0, 1000, max_share=1.0).limit == 1000


def test_a_video_counts_and_is_told_of_once() -> None:
    videos = bad_videos(3, 1000)
    videos.add(BadVideo("1.mp4", "1.mp4: another reason"))
    assert len(videos) == 3
    assert [video.path for video in videos.take_new()] == ["0.mp4", "1.mp4", "2.mp4"]
    assert videos.take_new() == []
    assert videos.learn([BadVideo("2.mp4", "?"), BadVideo("9.mp4", "?")]) == [BadVideo("9.mp4", "?")]
    assert videos.take_new() == []
    assert "9.mp4" in videos


def test_the_complaint_names_the_first() -> None:
    complaint = bad_videos(12, 1000).complaint()
    assert complaint.startswith("12 of 1000 videos could not be read, more than the 10 allowed")
    assert "data.bad_videos.max_share=0.01" in complaint
    assert complaint.count("no frame can be decoded") == 10
    assert complaint.endswith("… and 2 more")
    assert "none is allowed" in bad_videos(1, 1000, policy="error").complaint()
