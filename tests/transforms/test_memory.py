"""Memory that clips use one after the other."""

import threading

import pytest
import torch

from iwin.transforms.memory import empty_clip


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (1, 2, 1024, 1024, 3)])
def test_clips_have_their_shape(shape: tuple[int, ...]) -> None:
    clip = empty_clip(*shape)
    assert (clip.shape, clip.dtype, clip.is_contiguous()) == (shape, torch.uint8, True)


def test_memory_is_used_again_when_nothing_refers_to_it() -> None:
    clip = empty_clip(3, 1024, 1024)
    place = clip.data_ptr()
    corner = clip[0, :2, :2].fill_(7)
    del clip
    assert empty_clip(3, 1024, 1024).data_ptr() != place, "a part of it is in use"
    assert corner.tolist() == [[7, 7], [7, 7]]
    del corner
    assert empty_clip(3, 1024, 1024).data_ptr() == place


def test_much_smaller_clips_leave_it_to_others() -> None:
    place = empty_clip(40, 1024, 1024).data_ptr()
    small = empty_clip(10, 1024, 1024)
    assert small.data_ptr() != place
    assert empty_clip(30, 1024, 1024).data_ptr() == place


@pytest.mark.slow
def test_clips_of_threads_do_not_share_memory() -> None:
    wrong = []

    def work(value: int) -> None:
        for _ in range(200):
            clip = empty_clip(2, 1024, 1024).fill_(value)
            if not bool((clip == value).all()):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
