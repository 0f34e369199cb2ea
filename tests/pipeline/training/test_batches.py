"""Batches as tensors, reading ahead, and data that does not fit the model."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.recipe import Recipe
from pipeline.training.batches import check_frames, read_windows, to_model
from pipeline.training.job import Job, stage_order
from pipeline.training.order import GlobalOrder, Windows
from pipeline.training.partners import ClipTable
from pipeline.training.prefetch import PrefetchedBatches, ShardReadAhead
from preprocessing.dataset.reader import ClipDataset


def test_a_batch_holds_the_windows_of_its_clips_in_order(tiny_job: Callable[..., Job], tiny_clips: ClipDataset) -> None:
    windows = stage_order(tiny_job(), 1).at(0)
    frames = read_windows(tiny_clips, windows, 4)
    assert frames.shape == (4, 8, 32, 32, 3)
    assert windows.partners is not None
    assert windows.partner_starts is not None
    for row in range(4):
        first = tiny_clips.frames(windows.clips[row])[windows.starts[row] :][:4]
        second = tiny_clips.frames(windows.partners[row])[windows.partner_starts[row] :][:4]
        assert np.array_equal(frames[row].numpy(), np.concatenate([first, second]))


@pytest.mark.slow
def test_the_model_gets_channels_first_between_0_and_1() -> None:
    frames = torch.arange(2 * 3 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 3, 4, 4, 3)
    frames[0, 0, 0, 0, 0] = 255
    ready = to_model(frames, torch.device("cpu"))
    assert ready.shape == (2, 3, 3, 4, 4)
    assert ready.dtype == torch.float32
    assert ready.is_contiguous()
    assert ready[0, 0, 0, 0, 0] == 1.0
    assert ready[1, 2, 1, 3, 0] == frames[1, 2, 3, 0, 1] / 255
    assert to_model(frames, torch.device("meta")).device.type == "meta"


def test_prefetched_batches_come_in_order_and_the_thread_ends(
    tiny_job: Callable[..., Job], tiny_clips: ClipDataset
) -> None:
    order = stage_order(tiny_job(), 2)
    batches = [order.at(step) for step in range(12)]
    with PrefetchedBatches(tiny_clips, batches, 4) as prefetched:
        got = list(prefetched)
    assert [windows.clips.tolist() for windows, _ in got] == [windows.clips.tolist() for windows in batches]
    assert prefetched.waited_s > 0
    with PrefetchedBatches(tiny_clips, (order.at(step) for step in range(10**9)), 4) as prefetched:
        next(iter(prefetched))
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


def test_an_error_of_the_reader_reaches_the_training() -> None:
    class Broken:
        keys, identities, clip_frames, clip_shards = ["one"], ["someone"], [4], [0]

        def frames(self, index: int) -> NDArray[np.uint8]:
            raise OSError("the disk failed")

    windows = Windows(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), None, None)
    with PrefetchedBatches(Broken(), [windows], 4) as prefetched, pytest.raises(OSError, match="the disk failed"):
        list(prefetched)


class Remote:
    """Clips in ten shards that have to be downloaded to this machine."""

    def __init__(self, room: int) -> None:
        self.keys = [f"clip{number}" for number in range(100)]
        self.identities = [f"one{number // 5}" for number in range(100)]
        self.clip_frames, self.clip_shards = [4] * 100, [number % 10 for number in range(100)]
        self.prepared: list[int] = []
        self.room = room

    def prepare(self, shard: int) -> bool:
        if len(self.prepared) >= self.room:
            return False
        self.prepared.append(shard)
        return True


def ahead_of(clips: Remote, block: int) -> tuple[GlobalOrder, ShardReadAhead]:
    order = GlobalOrder(
        ClipTable(clips.keys, clips.identities, np.full(100, 4), np.array(clips.clip_shards)),
        seed=0,
        stage=1,
        window=2,
        batch=4,
        validation_fraction=0.1,
        block_shards=block,  # type: ignore[arg-type]
    )
    return order, ShardReadAhead(clips, order.at, range(100), block)  # type: ignore[arg-type]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_shards_are_downloaded_about_a_block_ahead_in_the_order_of_their_use() -> None:
    clips = Remote(room=1000)
    order, ahead = ahead_of(clips, 2)
    with ahead:
        until(lambda: len(clips.prepared) >= 2)
        time.sleep(0.5)
        needed = [clips.clip_shards[clip] for clip in order.epoch(0).tolist()]
        first_use = list(dict.fromkeys(needed))
        few = len(clips.prepared)
        assert few <= 4  # not all ten at once
        assert set(clips.prepared) == set(first_use[:few])
        for step in range(23):
            ahead.reached(step)
            coming = {clips.clip_shards[clip] for clip in order.at(step).clips.tolist()}
            until(lambda coming=coming: coming <= set(clips.prepared))  # type: ignore[misc]


def test_a_rank_downloads_no_shard_that_only_others_read() -> None:
    clips = Remote(room=1000)
    order, ahead = ahead_of(clips, 10)
    ahead.__exit__()

    def first_of_four(step: int) -> Windows:
        return order.at(step).part(slice(0, 1))

    needed = {clips.clip_shards[clip] for step in range(6) for clip in first_of_four(step).clips.tolist()}
    read_by_all = {clips.clip_shards[clip] for step in range(6) for clip in order.at(step).clips.tolist()}
    assert needed < read_by_all
    clips.prepared.clear()
    with ShardReadAhead(clips, first_of_four, range(6), 10):  # type: ignore[arg-type]
        until(lambda: set(clips.prepared) >= needed)
    assert set(clips.prepared) == needed


def test_no_shard_is_downloaded_while_there_is_no_room() -> None:
    clips = Remote(room=1)
    _, ahead = ahead_of(clips, 5)
    with ahead:
        until(lambda: len(clips.prepared) == 1)
        time.sleep(0.5)
        assert len(clips.prepared) == 1
        clips.room = 3
        until(lambda: len(clips.prepared) == 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"frame_size": 64, "encoder_channels": (8, 8, 8, 4), "decoder_channels": (8, 8, 8, 4)},
            "32x32 pixels and model.frame_size is 64",
        ),
        ({"channels": 1}, "3 channels and model.channels is 1; set model.channels to 3"),
    ],
)
def test_frames_that_do_not_fit_the_model_are_refused(
    tiny_clips: ClipDataset, tiny_recipe: Recipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_frames(tiny_clips, replace(tiny_recipe.model, **changes))


def test_a_dataset_or_a_batch_without_clips_is_refused(tiny_recipe: Recipe) -> None:
    class Empty:
        keys, identities, clip_frames, clip_shards = [], [], [], []  # type: ignore[var-annotated]

    clips: Any = Empty()
    with pytest.raises(ValueError, match=r"^the training split of the dataset has no clips; shard a source that has s"):
        check_frames(clips, tiny_recipe.model)
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match=r"^the batch has no clips$"):
        read_windows(clips, Windows(none, none, None, None), 4)


def test_frames_of_the_models_size_are_accepted(tiny_clips: ClipDataset, tiny_recipe: Recipe) -> None:
    check_frames(tiny_clips, tiny_recipe.model)


@pytest.mark.parametrize("doubled", [0, 1])
def test_frames_that_are_not_square_are_refused(tiny_recipe: Recipe, doubled: int) -> None:
    size = tiny_recipe.model.frame_size
    shape = [size, size]
    shape[doubled] *= 2

    class Oblong:
        keys = ("one",)

        def frames(self, index: int) -> NDArray[np.uint8]:
            assert index == 0
            return np.zeros((8, *shape, 3), dtype=np.uint8)

    clips: Any = Oblong()
    message = f"the dataset's frames are {shape[0]}x{shape[1]} pixels and model.frame_size is {size}; set"
    with pytest.raises(ValueError, match=message):
        check_frames(clips, tiny_recipe.model)
