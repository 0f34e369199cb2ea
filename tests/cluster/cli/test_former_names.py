"""Settings that were renamed: old recipes, options and stored files are read under the current names."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cluster.cli import former_names
from cluster.cli.former_names import current_path, with_current_names
from cluster.cli.run import parse
from cluster.cli.settings import Controls, Section, paths
from cluster.errors import UserError
from pipeline.recipe import Recipe as RealRecipe


class Optimiser(Section):
    """An optimiser."""

    rate: float = 1.0
    """Its rate."""


class Stage(Section):
    """A stage."""

    weight: float = 0.0
    """Weight of a loss."""
    sizes: tuple[int, ...] = (1, 2)
    """Sizes."""
    fast: bool = False
    """Whether it is fast."""
    optimiser: Optimiser = Optimiser()
    """The optimiser."""


class Recipe(Section):
    """A recipe."""

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {
        "training.stage1.agreement": "training.stage1.weight",
        "training.stage1.widths": "training.stage1.sizes",
        "training.stage1.is_quick": "training.stage1.fast",
        "training.adam": "training.stage1.optimiser",
        "old.seed": "random_seed",
    }

    class Training(Section):
        """The training."""

        stage1: Stage = Stage()
        """A stage."""

    training: Training = Training()
    """The training."""
    random_seed: int = 0
    """A seed."""


class Command(Recipe, Controls):
    """A command."""


@pytest.fixture(autouse=True)
def nothing_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(former_names, "_warned_of", set())


def read(*args: str) -> Command:
    return parse(Command, list(args), prog="vdsm x")


def recipe_file(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


AGREEMENT = "training.stage1.agreement -> training.stage1.weight"


def test_a_recipe_is_read_under_the_current_names_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recipe_file(tmp_path, "training: {stage1: {agreement: 0.5, widths: [3, 4]}}")
    command = read("--config", path)
    assert (command.training.stage1.weight, command.training.stage1.sizes) == (0.5, (3, 4))
    assert warnings_in(caplog) == [
        f"renamed settings, use the new names: {AGREEMENT}, training.stage1.widths -> training.stage1.sizes"
    ]


@pytest.mark.parametrize(
    "args",
    [
        ["--training.stage1.agreement", "0.5"],
        ["--training.stage1.agreement=0.5"],
    ],
)
def test_an_option_is_read_under_the_current_name(args: list[str], caplog: pytest.LogCaptureFixture) -> None:
    assert read(*args).training.stage1.weight == 0.5
    assert warnings_in(caplog) == [f"renamed settings, use the new names: {AGREEMENT}"]


def test_options_with_lists_flags_and_hyphens_are_read_too() -> None:
    assert read("--training.stage1.widths", "7", "8", "9").training.stage1.sizes == (7, 8, 9)
    assert read("--training.stage1.is-quick").training.stage1.fast
    assert not read("--training.stage1.is_quick", "--training.stage1.no-is-quick").training.stage1.fast


def test_a_renamed_section_is_read_as_a_whole(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "training: {adam: {rate: 0.25}}\nold: {seed: 3}")
    command = read("--config", path)
    assert (command.training.stage1.optimiser.rate, command.random_seed) == (0.25, 3)
    assert read("--training.adam.rate", "0.125").training.stage1.optimiser.rate == 0.125


def test_recipe_and_options_share_one_warning_and_each_name_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recipe_file(tmp_path, "training: {stage1: {agreement: 0.5}}\nold: {seed: 3}")
    for _ in range(2):
        assert read("--config", path, "--training.stage1.agreement", "2").training.stage1.weight == 2
    assert warnings_in(caplog) == [f"renamed settings, use the new names: {AGREEMENT}, old.seed -> random_seed"]
    read("--training.stage1.widths", "5")  # a name that is new in this process
    assert len(warnings_in(caplog)) == 2


def test_an_option_under_either_name_overrides_a_recipe_under_the_other(tmp_path: Path) -> None:
    former = recipe_file(tmp_path, "training: {stage1: {agreement: 0.5}}")
    assert read("--config", former, "--training.stage1.weight", "2").training.stage1.weight == 2


def test_both_names_in_one_recipe_are_an_error(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "training: {stage1: {agreement: 0.5, weight: 0.5}}")
    with pytest.raises(UserError) as caught:
        read("--config", path)
    assert str(caught.value) == (
        f"{path}: training.stage1.agreement is the former name of training.stage1.weight, which is set too; "
        "remove training.stage1.agreement"
    )


def test_both_names_on_the_command_line_are_an_error() -> None:
    with pytest.raises(UserError) as caught:
        read("--training.stage1.agreement", "1", "--training.stage1.weight", "1")
    assert str(caught.value) == (
        "--training.stage1.agreement is the former name of --training.stage1.weight, which is given too; "
        "remove --training.stage1.agreement"
    )


def test_a_wrong_value_under_a_former_name_is_reported_after_the_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recipe_file(tmp_path, "training: {stage1: {agreement: yes}}")
    with pytest.raises(UserError, match=r"training\.stage1\.weight is true; it must not be true or false"):
        read("--config", path)
    assert warnings_in(caplog) == [f"renamed settings, use the new names: {AGREEMENT}"]


def test_help_suggestions_and_printed_recipes_show_the_current_names_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    text = capsys.readouterr().out
    assert "--training.stage1.weight" in text
    assert "agreement" not in text
    with pytest.raises(UserError, match=r"^unknown option --training\.stage1\.agreemnt(?!.*agreement)"):
        read("--training.stage1.agreemnt", "1")
    with pytest.raises(SystemExit):
        read("--config", recipe_file(tmp_path, "training: {stage1: {agreement: 0.5}}"), "--print-config")
    printed = capsys.readouterr().out
    assert "weight: 0.5" in printed
    assert "agreement" not in printed


def test_a_stored_tree_is_translated_without_being_changed(caplog: pytest.LogCaptureFixture) -> None:
    stored: dict[str, Any] = {"training": {"stage1": {"agreement": 0.5, "sizes": [1]}, "adam": {"rate": 2}}}
    before = repr(stored)
    assert with_current_names(stored, Recipe) == {
        "training": {"stage1": {"weight": 0.5, "sizes": [1], "optimiser": {"rate": 2}}}
    }
    assert repr(stored) == before
    assert len(warnings_in(caplog)) == 1
    current = {"training": {"stage1": {"weight": 0.5}}}
    assert with_current_names(current, Recipe) == current
    assert with_current_names(current, Optimiser) == current  # a class that declares no former names


def test_a_path_below_a_renamed_setting_is_translated() -> None:
    assert current_path("training.stage1.widths.1", Recipe) == "training.stage1.sizes.1"
    assert current_path("training.stage1.sizes.1", Recipe) == "training.stage1.sizes.1"
    assert current_path("training.stage1.widths_more", Recipe) == "training.stage1.widths_more"


def test_a_value_where_the_current_name_needs_a_section_is_one_error(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "training: {stage1: 3, adam: {rate: 1}}")
    with pytest.raises(UserError, match=r"training\.stage1 is 3; it must be a section"):
        read("--config", path)


def test_the_former_names_of_the_recipe_are_no_settings_and_the_current_ones_are() -> None:
    settings = set(paths(RealRecipe))
    assert RealRecipe.FORMER_NAMES
    assert not settings & set(RealRecipe.FORMER_NAMES)
    assert set(RealRecipe.FORMER_NAMES.values()) <= settings


def test_a_recipe_of_an_earlier_version_is_read() -> None:
    stage1 = {"decoded_frames": 4, "annealing": {"agreement": 1.0, "matching": 0.0}, "pairing": "identity"}
    stage2 = {"decoded_frames": None, "annealing": {"agreement": 0.5, "matching": 2.0}}
    training = RealRecipe.model_validate(
        with_current_names({"training": {"stage1": stage1, "stage2": stage2}}, RealRecipe)
    ).training
    assert (training.stage1.num_decoded_frames, training.stage2.num_decoded_frames) == (4, None)
    assert training.stage1.annealing.static_consistency == 1
    assert training.stage2.annealing.dynamics_consistency == 0.5
    assert (training.stage1.annealing.pose_distillation, training.stage2.annealing.pose_distillation) == (0, 2)
