"""Views through a model side by side."""

import threading

import pytest
import torch
from torch import Tensor, nn

from iwin.models.lanes import Layout, run_views

CPU = torch.device("cpu")


@pytest.mark.parametrize("layout", [Layout(4), Layout(1), Layout(4, 2), Layout(3, 3), Layout(100, 2), Layout(8, 4, 12)])
def test_rows_come_in_the_order_of_the_views(layout: Layout) -> None:
    views = torch.arange(24.0).view(12, 1, 1, 1, 2)
    assert torch.equal(run_views(lambda views: 2 * views.flatten(1), views, layout), 2 * views.flatten(1))


def test_lanes_run_side_by_side_without_gradients_each_with_its_share_of_the_threads() -> None:
    together = threading.Barrier(2)
    seen = []

    def forward(views: Tensor) -> Tensor:
        together.wait(timeout=60)  # breaks where one chunk waits for the end of another
        seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return views

    own = torch.get_num_threads()
    try:
        torch.set_num_threads(5)
        run_views(forward, torch.zeros(6, 1, 1, 1, 1), Layout(2, 2))
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(own)
    assert seen == [(2, True)] * 6


@pytest.mark.parametrize(
    ("threads", "at_once", "total", "lanes"),
    [
        (2, 4, None, 2),
        (2, 1, None, 1),
        (12, 8, None, 6),
        (64, 8, None, 8),
        (2, 12, 12, 2),
        (8, 12, 12, 4),
        (2, 3, 3, 1),  # two lanes would leave one idle for half of the time
        (4, 1, 1, 1),
        (1, 12, 12, 1),
    ],
)
def test_lanes_keep_threads_busy(
    monkeypatch: pytest.MonkeyPatch, threads: int, at_once: int, total: int | None, lanes: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = nn.Sequential(nn.Linear(1, 1))
    assert Layout.on(CPU, at_once, model=model, total=total).lanes == lanes
    assert Layout.on(torch.device("cuda"), at_once, model=model, total=total).lanes == 1
    model[0].compile()
    assert Layout.on(CPU, at_once, model=model, total=total).lanes == 1


@pytest.mark.parametrize(
    ("layout", "view", "size"),
    [
        (Layout(8), (32, 224, 224, 3), 8),
        (Layout(8, 2), (32, 224, 224, 3), 1),
        (Layout(8, 2), (16, 112, 112, 3), 4),
        (Layout(100, 2), (16, 112, 112, 3), 4),
        (Layout(12, 2, 12), (32, 224, 224, 3), 1),
        (Layout(12, 2, 12), (16, 112, 112, 3), 3),  # both lanes get two chunks of three
        (Layout(12, 2, 12), (8, 64, 64, 3), 6),
    ],
)
def test_chunks_are_of_about_a_million_pixels(layout: Layout, view: tuple[int, ...], size: int) -> None:
    assert layout.size(view) == size
