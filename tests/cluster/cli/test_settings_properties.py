"""Properties of settings: options win over the recipe, the recipe over the defaults, for any settings of the recipe."""

import contextlib
import copy
import io
import tempfile
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.cli.former_names import current_args, with_current_names
from cluster.cli.recipe_file import leaves
from cluster.cli.run import parse
from cluster.cli.settings import Tree, holds, merge, option
from cluster.errors import UserError
from pipeline.recipe import Recipe
from tests.cluster.cli.commands import TrainLike, read
from tests.cluster.cli.drawn_settings import (
    PATHS,
    RECIPE_PATHS,
    Flat,
    annotation_of,
    as_options,
    as_recipe,
    as_tree,
    can_be_option,
    settings,
    values,
)
from tests.property_settings import examples


def is_nan(value: Any) -> bool:
    return any(map(is_nan, value)) if isinstance(value, tuple) else value != value


def is_large(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(map(is_large, value))
    return isinstance(value, int | float) and abs(value) > 10**9


def expected(recipe: Flat, options: Flat) -> TrainLike | None:
    """Return the command with each setting assigned one after the other, and validated once; None if it is invalid."""
    tree = TrainLike(data="here").model_dump()
    for path, value in [*recipe.items(), *options.items()]:
        *sections, last = path.split(".")
        node = tree
        for name in sections:
            node = node[name]
        node[last] = value
    given = {**recipe, **options}
    if any(map(is_nan, given.values())) or any(is_large(value) for path, value in given.items() if path != "seed"):
        return None
    try:
        return TrainLike.model_validate(tree)
    except ValidationError:
        return None


def dump(command: Recipe, **options: Any) -> str:
    """Return all settings as text, in which 1 is not 1.0."""
    return repr(command.model_dump(exclude={"config"}, **options))


def flat(tree: Tree) -> list[str]:
    return sorted(map(repr, leaves(tree)))


def possible(options: Flat) -> Flat:
    return {path: value for path, value in options.items() if can_be_option(path, value)}


@pytest.mark.slow
@examples(20)
@given(settings(RECIPE_PATHS), settings(PATHS), st.booleans(), st.booleans())
def test_options_win_over_the_recipe_and_the_recipe_over_the_defaults(
    recipe: Flat, options: Flat, equals: bool, hyphens: bool
) -> None:
    options = possible(options)
    with tempfile.TemporaryDirectory() as folder:
        args = [*as_recipe(recipe, folder), *as_options(options, equals=equals, hyphens=hyphens)]
        wanted = expected(recipe, options)
        if wanted is None:
            with pytest.raises(UserError) as caught:
                read(*args)
            assert len(str(caught.value).splitlines()) == 1
        else:
            assert dump(read(*args)) == dump(wanted)


@pytest.mark.slow
@examples(10)
@given(settings(RECIPE_PATHS), settings(RECIPE_PATHS))
def test_a_printed_recipe_reads_back_as_the_same_settings(recipe: Flat, options: Flat) -> None:
    options = possible(options)
    wanted = expected(recipe, options)
    assume(wanted is not None)
    assert wanted is not None
    with tempfile.TemporaryDirectory() as folder:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
            parse(TrainLike, [*as_recipe(recipe, folder), *as_options(options), "--print-config"], prog="vdsm train")
        text = printed.getvalue()
        again = read(*as_recipe(dict(leaves(yaml.safe_load(text))), folder))
    assert dump(Recipe.of(again)) == dump(Recipe.of(wanted))


@st.composite
def renamed(draw: st.DrawFn) -> tuple[Flat, Flat]:
    """Draw settings that have a former name, under the current names, and each under either name."""
    chosen = draw(st.lists(st.sampled_from(sorted(Recipe.FORMER_NAMES)), min_size=1, unique=True))
    current, either = {}, {}
    for former in chosen:
        path = Recipe.FORMER_NAMES[former]
        current[path] = draw(values(annotation_of(path)))
        either[former if draw(st.booleans()) else path] = current[path]
    return current, either


@examples(8)
@given(renamed(), renamed())
def test_a_former_name_means_the_current_one_in_recipes_and_options(
    recipe: tuple[Flat, Flat], options: tuple[Flat, Flat]
) -> None:
    pairs = {"training.stage1.pairing": "identity"}  # which the consistency of stage 1 requires
    wanted = expected({**pairs, **recipe[0]}, options[0])
    with tempfile.TemporaryDirectory() as folder:
        args = [*as_recipe({**pairs, **recipe[1]}, folder), *as_options(options[1])]
        if wanted is None:
            with pytest.raises(UserError):
                read(*args)
        else:
            assert dump(read(*args)) == dump(wanted)


@examples(40)
@given(renamed(), st.data())
def test_former_names_are_replaced_and_both_names_of_a_setting_are_refused(
    drawn: tuple[Flat, Flat], data: st.DataObject
) -> None:
    current, either = drawn
    stored = as_tree(either)
    assert flat(with_current_names(stored, Recipe, warn=False)) == flat(as_tree(current))
    assert repr(stored) == repr(as_tree(either))  # not changed in place
    assert current_args(as_options(either), Recipe)[0] == as_options(current)
    former = data.draw(st.sampled_from([name for name, path in Recipe.FORMER_NAMES.items() if path in current]))
    name = Recipe.FORMER_NAMES[former]
    both = {name: 1, former: 1}
    with pytest.raises(UserError, match=f"^{former} is the former name of {name}, which is"):
        with_current_names(as_tree(both), Recipe, warn=False)
    with pytest.raises(UserError, match=f"^{option(former)} is the former name of {option(name)}, which is"):
        current_args(as_options(both), Recipe)


def trees(depth: int = 3) -> st.SearchStrategy[Tree]:
    """Return nested sections `s` and `t` of values `a` and `b`, so that trees share many paths."""
    values: dict[str, st.SearchStrategy[Any]] = {"a": st.integers(), "b": st.lists(st.integers(), max_size=2)}
    sections = {"s": trees(depth - 1), "t": trees(depth - 1)} if depth else {}
    return st.fixed_dictionaries({}, optional=values | sections)


@examples(50)
@given(trees(), trees(), trees())
def test_merging_is_updating_path_by_path_and_changes_no_argument(one: Tree, two: Tree, three: Tree) -> None:
    copies = copy.deepcopy((one, two, three))
    assert dict(leaves(merge(one, two))) == {**dict(leaves(one)), **dict(leaves(two))}
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert merge(one, {}) == merge({}, one) == merge(one, one) == one
    assert (one, two, three) == copies
    assert all(holds(merge(one, two), path) for tree in (one, two) for path, _ in leaves(tree))
