"""A clip that readers could not use is refused before any of its bytes are written, for every way to be invalid."""

import dataclasses
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.clip import Clip
from preprocessing.dataset.writer import ShardWriter
from tests.preprocessing.dataset.memory_source import MemorySource, sources
from tests.property_settings import examples, names

NOT_NUMBERS = st.sampled_from([math.nan, math.inf, -math.inf])


@st.composite
def invalid(draw: st.DrawFn, source: MemorySource, clip: Clip) -> dict[str, Any]:
    """Draw a change that makes a valid clip invalid."""
    frames, labels = clip.frames, dict(clip.labels)
    label = draw(st.sampled_from(sorted(labels)))
    value = labels[label]
    if label in source.vocabulary:
        wrong: st.SearchStrategy[Any] = st.sampled_from([-1, len(source.vocabulary[label]), 0.0, None, "0", [0]])
    elif isinstance(value, list):
        wrong = st.sampled_from([value[0], value + [0.0], value[1:]]) | NOT_NUMBERS.map(lambda bad: [bad, *value[1:]])
    else:
        wrong = NOT_NUMBERS | st.just([value])
    changes: list[st.SearchStrategy[dict[str, Any]]] = [
        st.fixed_dictionaries({"key": st.sampled_from(["", "a.b", "a/b", "ä", "a b", "a\n"])}),
        st.fixed_dictionaries({"fps": NOT_NUMBERS | st.sampled_from([0.0, -25.0])}),
        st.fixed_dictionaries({"start_s": NOT_NUMBERS}),
        st.fixed_dictionaries(
            {"frames": st.sampled_from([np.int8, np.uint16, np.float32, np.bool_]).map(frames.astype)}
        ),
        st.fixed_dictionaries({"frames": st.sampled_from([frames[0], frames[None], frames[:0], frames[:, :, :0]])}),
        st.fixed_dictionaries({"labels": wrong.map(lambda bad: labels | {label: bad})}),
        st.just({"labels": {name: labels[name] for name in labels if name != label}}),
        st.fixed_dictionaries(
            {"labels": names().filter(lambda name: name not in labels).map(lambda n: labels | {n: 0})}
        ),
    ]
    return draw(st.one_of(changes))


@pytest.mark.slow
@examples(60)
@given(sources(), st.data())
def test_an_invalid_clip_is_refused_and_leaves_no_trace(source: MemorySource, data: st.DataObject) -> None:
    clips = source.planned_clips("train")
    change = data.draw(invalid(source, clips[0]))
    file, clean = io.BytesIO(), io.BytesIO()
    disturbed, undisturbed = ShardWriter(file, source), ShardWriter(clean, source)
    with pytest.raises(ValueError, match=r"^clip "):
        disturbed.add(dataclasses.replace(clips[0], **change))
    for clip in clips:
        disturbed.add(clip)
        undisturbed.add(clip)
    assert disturbed.close() == undisturbed.close()
    assert file.getvalue() == clean.getvalue()
