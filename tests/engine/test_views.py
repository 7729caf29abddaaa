"""Views of many videos through a model in full chunks."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from iwin.data.datasets import Batch
from iwin.engine.views import ViewStream
from iwin.models.lanes import Layout

CPU = torch.device("cpu")


def batches(*videos: int, views: int, side: int = 4) -> Iterator[Batch]:
    """Batches of so many videos each; all pixels of a view are 10 * video + view."""
    first = 0
    for count in videos:
        numbers = torch.arange(first, first + count)
        pixels = 10 * numbers[:, None] + torch.arange(views)
        clips = pixels[..., None, None, None, None].expand(count, views, 2, side, side, 3).to(torch.uint8)
        yield Batch(clips, torch.zeros(count, dtype=torch.int64), numbers)
        first += count


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("size", [1, 4, 5, 12, 100])
@pytest.mark.parametrize("videos", [(1, 1, 1, 1, 1), (3, 2), (2, 0, 3), (5,)])
def test_every_video_gets_the_rows_of_its_views_in_order(videos: tuple[int, ...], size: int, lanes: int) -> None:
    chunks = []

    def forward(views: Tensor) -> Tensor:
        chunks.append(len(views))
        return views[:, 0, 0, 0].float()

    rows = list(ViewStream(forward, Layout(size * lanes, lanes), device=CPU)(batches(*videos, views=3)))
    assert [index for index, _ in rows] == list(range(5))
    for index, values in rows:
        assert values[:, 0].tolist() == [10 * index + view for view in range(3)]
    assert sorted(chunks, reverse=True) == [size] * (15 // size) + ([15 % size] if 15 % size else [])


def test_frames_of_another_size_begin_a_chunk_of_their_own() -> None:
    shapes = []

    def forward(views: Tensor) -> Tensor:
        shapes.append(tuple(views.shape[:3]))
        return views[:, 0, 0, 0].float()

    mixed = [*batches(1, views=3, side=4), *batches(1, views=3, side=8)]
    assert [len(rows) for _, rows in ViewStream(forward, Layout(4), device=CPU)(mixed)] == [3, 3]
    assert shapes == [(3, 2, 4), (3, 2, 8)]


@pytest.mark.parametrize("lanes", [1, 2])
def test_nothing_gives_nothing(lanes: int) -> None:
    stream = ViewStream(lambda views: views[:, 0, 0, 0].float(), Layout(4, lanes), device=CPU)
    assert list(stream([])) == []


def test_a_chunk_is_read_after_the_next_one_is_launched() -> None:
    launched = 0

    def forward(views: Tensor) -> Tensor:
        nonlocal launched
        launched += 1
        return views[:, 0, 0, 0].float()

    stream = ViewStream(forward, Layout(3), device=CPU)
    seen = [launched for _ in stream(batches(1, 1, 1, views=3))]
    assert seen == [2, 3, 3]


@pytest.mark.parametrize("lanes", [1, 2])
def test_an_error_of_the_model_comes_out(lanes: int) -> None:
    def forward(_views: Tensor) -> Tensor:
        raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        list(ViewStream(forward, Layout(2, lanes), device=CPU)(batches(5, views=3)))
