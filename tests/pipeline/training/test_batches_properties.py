"""Properties of reading the windows of a batch, for clips of any length and any windows in them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.training.batches import read_windows, to_model
from pipeline.training.order import Windows
from tests.property_settings import examples


class ListedClips:
    """Clips of given lengths whose values tell clip, frame, row, column and channel apart."""

    def __init__(self, lengths: list[int], size: tuple[int, int, int]) -> None:
        self.keys = [f"clip{number}" for number in range(len(lengths))]
        self.identities = ["one"] * len(lengths)
        self.clip_frames, self.clip_shards = lengths, [0] * len(lengths)
        self._size = size

    def frames(self, index: int) -> NDArray[np.uint8]:
        shape = (self.clip_frames[index], *self._size)
        return np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)

    def prepare(self, shard: int) -> bool:
        return True


@st.composite
def batches(draw: st.DrawFn, *, beyond: int = 0) -> tuple[ListedClips, Windows, int]:
    """Draw clips, and windows in them; each may end up to `beyond` frames after the last one of its clip."""
    window = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(window, window + 4), min_size=1, max_size=5))
    samples = draw(st.integers(1, 6))

    def choose() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        clips = draw(st.lists(st.integers(0, len(lengths) - 1), min_size=samples, max_size=samples))
        starts = [draw(st.integers(0, lengths[clip] - window + beyond)) for clip in clips]
        return np.array(clips, dtype=np.int64), np.array(starts, dtype=np.int64)

    partners = choose() if draw(st.booleans()) else (None, None)
    size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 3])))
    return ListedClips(lengths, size), Windows(*choose(), *partners), window


@examples(40)
@given(batches())
def test_a_batch_holds_each_window_and_after_it_that_of_the_partner(case: tuple[ListedClips, Windows, int]) -> None:
    clips, windows, window = case
    batch = read_windows(clips, windows, window)
    assert batch.dtype == torch.uint8
    for row, (clip, start) in enumerate(zip(windows.clips, windows.starts, strict=True)):
        expected = [clips.frames(clip)[start + number] for number in range(window)]
        if windows.partners is not None and windows.partner_starts is not None:
            partner, begin = windows.partners[row], windows.partner_starts[row]
            expected += [clips.frames(partner)[begin + number] for number in range(window)]
        assert batch[row].numpy().tolist() == np.stack(expected).tolist()


@examples(40)
@given(batches(beyond=3))
def test_a_window_beyond_the_end_of_its_clip_is_an_error_that_names_the_clip(
    case: tuple[ListedClips, Windows, int],
) -> None:
    clips, windows, window = case
    parts = [(windows.clips, windows.starts), (windows.partners, windows.partner_starts)]
    chosen = [
        (clip, start)
        for indices, starts in parts
        if indices is not None and starts is not None
        for clip, start in zip(indices.tolist(), starts.tolist(), strict=True)
    ]
    beyond = [(clip, start) for clip, start in chosen if start + window > clips.clip_frames[clip]]
    if beyond:
        clip, start = beyond[0]
        with pytest.raises(ValueError, match=f"^clip clip{clip} ends before frame {start + window};"):
            read_windows(clips, windows, window)
    else:
        assert read_windows(clips, windows, window).shape[1] == window * (1 if windows.partners is None else 2)


@examples(25)
@given(batches())
def test_the_model_gets_every_value_over_255_with_channels_first(case: tuple[ListedClips, Windows, int]) -> None:
    frames = read_windows(*case)
    ready = to_model(frames, torch.device("cpu"))
    count, length, height, width, channels = frames.shape
    assert ready.shape == (count, length, channels, height, width)
    for index in np.ndindex(*frames.shape):
        b, t, h, w, c = index
        assert ready[b, t, c, h, w] == torch.tensor(int(frames[index])) / 255
