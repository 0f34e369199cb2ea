"""Properties of the assignment of identities to splits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import UserError
from preprocessing.clip import SPLITS
from preprocessing.sources.splits import FEW, Splitter, draw
from tests.property_settings import examples, names

Entries = list[tuple[str, str | None]]
"""Identities of the inputs, each with the split that its labels set, if any."""


def assigned(entries: Entries, fraction: float, seed: int) -> dict[str, str]:
    splitter = Splitter(seed=seed, test_fraction=fraction)
    for identity, split in entries:
        splitter.add(identity, split)
    return {identity: splitter.split(identity) for identity, _ in entries}


@st.composite
def listings(draw: st.DrawFn) -> Entries:
    """Draw identities, a few or many, some with a split set by the labels of all or of some of their inputs."""
    people = draw(st.lists(names(), min_size=1, max_size=12, unique=True))
    if draw(st.booleans()):
        people += [f"person {number}" for number in range(draw(st.integers(FEW - 3, FEW + 20)))]
    labelled = {one: draw(st.none() | st.sampled_from(SPLITS)) for one in people[:8]}
    entries: Entries = [(one, labelled.get(one)) for one in people]
    entries += [(one, draw(st.sampled_from([None, labelled.get(one)]))) for one in people[:8]]
    return draw(st.permutations(entries)) if len(entries) < 30 else entries


def expected(entries: Entries, fraction: float, seed: int) -> dict[str, str]:
    """Return the splits by the definition: labels first; of the others, those that draw the smallest numbers."""
    labelled = {identity: split for identity, split in entries if split is not None}
    drawn = {identity: draw(seed, identity) for identity, split in entries if split is None}
    ranked = sorted(drawn, key=drawn.__getitem__)
    if len(ranked) > FEW:
        tests = [identity for identity in ranked if drawn[identity] < fraction or identity == ranked[0]]
    else:
        tests = ranked[: min(len(ranked) - 1, max(1, round(fraction * len(ranked))))] if ranked else []
    return {identity: labelled.get(identity, "test" if identity in tests else "train") for identity, _ in entries}


@examples(50)
@given(listings(), st.floats(0.001, 0.999), st.integers(0, 2**40))
def test_identities_are_assigned_as_defined(entries: Entries, fraction: float, seed: int) -> None:
    assert assigned(entries, fraction, seed) == expected(entries, fraction, seed)


@examples(40)
@given(listings(), st.floats(0.001, 0.999), st.integers(0, 2**40))
def test_the_order_of_the_inputs_does_not_matter(entries: Entries, fraction: float, seed: int) -> None:
    assert assigned(entries[::-1], fraction, seed) == assigned(entries, fraction, seed)


@examples(40)
@given(st.lists(names(), min_size=2, max_size=40, unique=True), st.floats(0.001, 0.999), st.integers(0, 2**40))
def test_two_identities_without_a_label_never_share_one_split_alone(
    people: list[str], fraction: float, seed: int
) -> None:
    assert set(assigned([(one, None) for one in people], fraction, seed).values()) == set(SPLITS)


@pytest.mark.slow
@examples(40)
@given(listings(), st.data())
def test_contradicting_or_unknown_splits_are_refused(entries: Entries, data: st.DataObject) -> None:
    labelled = [(identity, split) for identity, split in entries if split is not None]
    identity, split = data.draw(st.sampled_from(labelled or [("anna", "train")]))
    others = [one for one in SPLITS if one != split]
    wrong = data.draw(st.sampled_from(others) | names().filter(lambda name: name not in SPLITS))
    with pytest.raises(UserError, match=r"it must be train or test|assign it to one of them"):
        assigned([(identity, split), *entries, (identity, wrong)], 0.5, 0)
