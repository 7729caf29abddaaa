import pytest

from iwin.engine.advice import Advice

WAITING, WORKING = {"time": 1.0, "data_time": 0.5}, {"time": 1.0, "data_time": 0.05}


@pytest.mark.parametrize(
    ("num_workers", "processes", "cores", "knob"),
    [
        (0, 1, 8, "set it to 1 or more"),
        (2, 1, 8, "raise data.workers_per_gpu above 2; 2 of 8 cores decode"),
        (3, 2, 8, "raise data.workers_per_gpu above 3; 6 of 8 cores decode"),
        (4, 2, 8, "iwin data resize"),
    ],
)
def test_the_knob_follows_from_the_machine(num_workers: int, processes: int, cores: int, knob: str) -> None:
    advice = Advice(num_workers, processes, cores)
    assert advice(WAITING) is None, "the decoder processes were still starting"
    said = advice(WAITING)
    assert said is not None
    assert "waits for videos 50% of the time" in said
    assert knob in said


def test_it_is_said_once_and_only_where_there_is_need() -> None:
    advice = Advice(2, 1, 8)
    assert [advice(record) for record in (WORKING, WORKING, WORKING)] == [None] * 3
    assert advice(WAITING) is not None
    assert advice(WAITING) is None
