"""Views through a model side by side."""

import threading

import pytest
import torch
from torch import Tensor

from iwin.models.lanes import Layout, run_views

CPU = torch.device("cpu")


@pytest.mark.parametrize("layout", [Layout(4), Layout(1), Layout(2, 2), Layout(3, 1), Layout(1, 3), Layout(100, 2)])
def test_rows_come_in_the_order_of_the_views(layout: Layout) -> None:
    views = torch.arange(22.0).view(11, 2)
    assert torch.equal(run_views(lambda views: 2 * views, views, layout), 2 * views)


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
        run_views(forward, torch.zeros(6, 1), Layout(1, 2))
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(own)
    assert seen == [(2, True)] * 6


@pytest.mark.parametrize(
    ("threads", "at_once", "total", "layout"),
    [
        (2, 4, None, Layout(2, 2)),
        (2, 8, None, Layout(2, 2)),
        (2, 1, None, Layout(1, 1)),
        (12, 8, None, Layout(1, 6)),
        (64, 8, None, Layout(1, 8)),
        (2, 12, 12, Layout(1, 2)),
        (8, 12, 12, Layout(1, 4)),
        (2, 3, 3, Layout(1, 1)),  # two lanes would leave one idle for half of the time
        (4, 1, 1, Layout(1, 1)),
        (1, 12, 12, Layout(1, 1)),
    ],
)
def test_layouts_keep_threads_busy(
    monkeypatch: pytest.MonkeyPatch, threads: int, at_once: int, total: int | None, layout: Layout
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert Layout.on(CPU, at_once, total=total) == layout
    assert Layout.on(torch.device("cuda"), at_once, total=total) == Layout(at_once)
