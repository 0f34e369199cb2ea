"""A checkpoint that was copied or exchanged is not taken for another one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from pipeline.recipe import Recipe
from pipeline.runs.store import is_finished, load_run
from pipeline.training.position import TrainPosition
from pipeline.training.state import Provenance
from tests.pipeline.runs.test_store import file, run, state
from vdsm import checkpoint

__all__ = ["run"]


def test_a_checkpoint_under_the_name_of_another_is_refused_and_kept(run: Path, tiny_recipe: Recipe) -> None:
    first, second = run / "stage1.pt", run / "stage2.pt"
    second.write_bytes(first.read_bytes())
    for read in (lambda: load_run(str(run)), lambda: is_finished(str(run), tiny_recipe.training)):
        with pytest.raises(
            UserError, match=rf"^{second}: is the checkpoint of stage 1, step 24, not of stage 2, step 16"
        ):
            read()
    assert second.read_bytes() == first.read_bytes()
    second.unlink()
    newest = file(run, TrainPosition(2, 10))
    newest.rename(second)  # not the end of the stage
    with pytest.raises(UserError, match=rf"^{second}: is the checkpoint of stage 2, step 10"):
        is_finished(str(run), tiny_recipe.training)
    assert (load_run(str(run))[2]["step"], load_run(str(run))[2]["finished"]) == (10, False)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"seed": 5}, "seed 5 -> 0"), ({"model": {"static_groups": 2}}, "model.static_groups 2 -> 1")],
)
def test_a_checkpoint_of_another_run_is_refused(
    run: Path, tiny_recipe: Recipe, settings: dict[str, Any], named: str
) -> None:
    other = tiny_recipe.model_copy(update=settings | {"model": replace(tiny_recipe.model, **settings.get("model", {}))})
    position = TrainPosition(2, 10)
    ours, theirs = (
        replace(state(one, position), provenance=Provenance(one.model_dump(mode="json")))
        for one in (tiny_recipe, other)
    )
    checkpoint.save(ours.to_dict(), file(run, position))
    assert load_run(str(run))[2]["step"] == 10
    checkpoint.save(theirs.to_dict(), file(run, position))
    with pytest.raises(UserError, match=rf"is a checkpoint of another run: config\.yaml beside it .*{named}"):
        load_run(str(run))
