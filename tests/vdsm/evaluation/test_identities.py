"""Clips are grouped by who they show."""

from vdsm.evaluation.identities import identity_indices


def test_names_have_the_index_of_their_place_among_the_sorted_names() -> None:
    assert identity_indices(["b", "a", "b", "ä"]).tolist() == [1, 0, 1, 2]


def test_names_that_differ_by_what_numpy_cuts_off_are_two() -> None:
    assert identity_indices(["a", "a\0", "a"]).tolist() == [0, 1, 0]
