"""The study as the record of a sweep: what is left after an interruption, what counts, what is best."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import StorageError
from cluster.storage.fence import Fence, fenced
from pipeline.recipe import Recipe
from pipeline.tuning import study as studies
from pipeline.tuning.identity import run_name
from pipeline.tuning.pruning import CheckpointPruner
from pipeline.tuning.results import best_recipe, write_results
from pipeline.tuning.searcher import StudySearcher, check_lock
from pipeline.tuning.space import Parameter, Space
from pipeline.tuning.sweep import Sweep
from pipeline.tuning.trial import SweepContext

RATE = "training.stage1.learning_rate"
SPACE = {RATE: Parameter(low=1e-4, high=1e-2, log=True)}
CONDITIONAL = SPACE | {
    "model.expert_init": Parameter(choices=("independent", "shared")),
    "model.static_prior_scale": Parameter(low=0.05, high=0.5, when={"model.expert_init": "shared"}),
}


def sweep_of(**changes: Any) -> Sweep:
    return Sweep(**({"space": SPACE, "trials": 6} | changes))


def opened(folder: Path, sweep: Sweep, recipe: Recipe | None = None) -> optuna.Study:
    return studies.open_study(str(folder / "study.journal"), "s", sweep, recipe or Recipe())


def search(study: optuna.Study, sweep: Sweep) -> StudySearcher:
    return StudySearcher(study, Space(sweep.space, Recipe()), sweep.trials, sweep.steps_fraction, sweep.objectives)


def test_trials_interrupted_by_a_killed_driver_rerun_with_their_values_in_their_runs(tmp_path: Path) -> None:
    sweep = sweep_of(space=CONDITIONAL)
    first = search(opened(tmp_path, sweep), sweep)
    left = {name: first.suggest(name) for name in ("a", "b", "c")}
    first.on_trial_complete("b", {"disentanglement": 0.5})
    del first  # killed: nothing more is recorded

    study = opened(tmp_path, sweep)
    assert studies.requeue_interrupted(study) == 2
    again = search(study, sweep)
    resumed = [again.suggest(f"again {number}") for number in range(2)]
    assert sorted(str(one["run"]) for one in resumed) == sorted(str(left[name]["run"]) for name in ("a", "c"))
    assert {str(one["values"]) for one in resumed} == {str(left[name]["values"]) for name in ("a", "c")}
    fresh = again.suggest("fresh")
    assert fresh["run"] not in [one["run"] for one in left.values()]


def test_repeated_interruptions_queue_the_same_values_only_once(tmp_path: Path) -> None:
    sweep = sweep_of()
    search(opened(tmp_path, sweep), sweep).suggest("a")
    for _ in range(3):
        study = opened(tmp_path, sweep)
        studies.requeue_interrupted(study)  # killed again before it asked for a trial
    assert len(study.get_trials(states=(TrialState.WAITING,))) == 1


def test_the_number_of_trials_includes_failed_but_not_interrupted_ones(tmp_path: Path) -> None:
    sweep = sweep_of(trials=4)
    one = search(opened(tmp_path, sweep), sweep)
    for name, result, error in (
        ("a", {"disentanglement": 0.1}, False),
        ("b", {"error": "the loss is NaN"}, False),
        ("c", None, True),
    ):
        assert isinstance(one.suggest(name), dict)
        one.on_trial_complete(name, result, error)
    one.suggest("interrupted")
    study = opened(tmp_path, sweep)
    studies.requeue_interrupted(study)
    other = search(study, sweep)
    assert isinstance(other.suggest("d"), dict)
    assert other.suggest("e") == StudySearcher.FINISHED
    other.on_trial_complete("d", {"disentanglement": 0.7})
    assert len(studies.finished_trials(study)) == 4
    reasons = {trial.user_attrs[studies.ERROR] for trial in study.trials if studies.ERROR in trial.user_attrs}
    assert reasons == {"the loss is NaN", "its process died more often than max_failures allows"}
    assert [trial.values for trial in studies.ranked_trials(study)] == [[0.7], [0.1]]


def test_equal_values_share_a_run_unless_both_train_at_once(tmp_path: Path) -> None:
    sweep = sweep_of(space={"model.expert_init": Parameter(choices=("shared",))}, trials=3)
    one = search(opened(tmp_path, sweep), sweep)
    first, second = one.suggest("a"), one.suggest("b")
    assert first["values"] == second["values"]
    assert first["run"] != second["run"]
    one.on_trial_complete("a", {"disentanglement": 0.3})
    one.on_trial_complete("b", {"disentanglement": 0.3})
    assert one.suggest("c")["run"] == first["run"]


def test_only_the_best_trials_keep_their_checkpoints(tmp_path: Path) -> None:
    sweep = sweep_of(trials=6, keep=2)
    study = opened(tmp_path, sweep)
    context = SweepContext(sweep=sweep, data="", url=str(tmp_path), judge=None)
    pruner = CheckpointPruner(study, context)
    one = StudySearcher(study, Space(sweep.space, Recipe()), 6, 1.0, sweep.objectives, pruner.prune)
    runs = {}
    for name, score in (("a", 0.3), ("b", 0.1), ("c", None), ("d", 0.5), ("e", 0.2)):
        run = tmp_path / "runs" / one.suggest(name)["run"]
        for file in ("checkpoints/stage1-step00000010.pt", "stage1.pt", "stage2.pt", "score.json", "metrics.jsonl"):
            storage.write_bytes(str(run / file), b"{}")
        runs[name] = run
        one.on_trial_complete(name, {"error": "NaN"} if score is None else {"disentanglement": score})
    training = tmp_path / "runs" / one.suggest("f")["run"]
    storage.write_bytes(str(training / "stage1.pt"), b"")
    pruner.prune()
    CheckpointPruner(study, context).prune()  # of a driver that was started again
    assert {name for name, run in runs.items() if list(run.rglob("*.pt"))} == {"a", "d"}
    assert (training / "stage1.pt").exists()
    assert all((run / name).exists() for run in runs.values() for name in ("score.json", "metrics.jsonl"))


def test_ray_tune_keeps_no_recipe_of_each_trial(tmp_path: Path) -> None:
    sweep = sweep_of(trials=1)
    suggested = search(opened(tmp_path, sweep), sweep).suggest("a")
    assert suggested.keys() == {"run", "number", "values"}
    assert len(str(suggested)) < 200


def test_values_that_the_models_reject_are_recorded_and_do_not_end_the_sweep(tmp_path: Path) -> None:
    # 24 and 48 are valid; most numbers between them are not.
    space = {"model.static_groups": Parameter(choices=(12,)), "model.num_experts": Parameter(low=24, high=48)}
    sweep = sweep_of(space=space, trials=8)
    study = opened(tmp_path, sweep)
    one = search(study, sweep)
    while isinstance(suggested := one.suggest("next"), dict):
        assert suggested["values"]["model.num_experts"] % 12 == 0
        one.on_trial_complete("next", {"disentanglement": 0.5})
    failed = [trial for trial in study.trials if studies.ERROR in trial.user_attrs]
    assert failed
    assert all("must divide num_experts" in trial.user_attrs[studies.ERROR] for trial in failed)
    assert len(studies.finished_trials(study)) == 8


@pytest.mark.parametrize(
    ("changes", "recipe", "named"),
    [
        ({"space": {RATE: Parameter(low=1e-4, high=1e-1, log=True)}}, Recipe(), "another space"),
        ({"pairs": 10}, Recipe(), "another objective"),
        ({}, Recipe(seed=9), "another recipe"),
    ],
)
def test_a_study_does_not_resume_with_other_settings(
    tmp_path: Path, changes: dict[str, Any], recipe: Recipe, named: str
) -> None:
    opened(tmp_path, sweep_of())
    opened(tmp_path, sweep_of(trials=99))  # the number of trials may change
    with pytest.raises(UserError, match=named):
        opened(tmp_path, sweep_of(**changes), recipe)


def test_the_best_of_two_objectives_are_its_pareto_front(tmp_path: Path) -> None:
    sweep = sweep_of(objective="both")
    study = opened(tmp_path, sweep)
    for score, elbo in ((0.2, 0.1), (0.9, 0.5), (0.5, 0.3), (0.4, 0.4)):
        trial = study.ask()
        trial.suggest_float(RATE, 1e-4, 1e-2, log=True)
        study.tell(trial, [score, elbo])
    ranked = [trial.values for trial in studies.ranked_trials(study)]
    assert ranked == [[0.9, 0.5], [0.5, 0.3], [0.2, 0.1], [0.4, 0.4]]


def test_the_best_trials_are_promoted_once(tmp_path: Path) -> None:
    sweep = sweep_of()
    first, second = opened(tmp_path, sweep), studies.open_study(str(tmp_path / "2"), "s/2", sweep, Recipe())
    for score in (0.1, 0.9, 0.5):
        trial = first.ask()
        trial.suggest_float(RATE, 1e-4, 1e-2, log=True)
        first.tell(trial, score)
    for _ in range(2):  # a driver that died in between repeats it
        studies.promote(first, second, 2)
    waiting = second.get_trials(states=(TrialState.WAITING,))
    wanted = {trial.params[RATE] for trial in studies.ranked_trials(first)[:2]}
    assert {trial.system_attrs["fixed_params"][RATE] for trial in waiting} == wanted
    assert len(waiting) == 2


def test_the_best_recipe_trains_with_all_steps(tmp_path: Path) -> None:
    sweep = sweep_of(space=CONDITIONAL, steps_fraction=0.1)
    study = opened(tmp_path, sweep)
    one = search(study, sweep)
    suggested = one.suggest("a")
    one.on_trial_complete("a", {"disentanglement": 0.5})
    context = SweepContext(sweep=sweep, data="", url=str(tmp_path), judge=None)
    path = tmp_path / "best.yaml"
    path.write_text(best_recipe(studies.ranked_trials(study)[0], Space(sweep.space, Recipe()), context))

    from cluster.cli.run import parse
    from pipeline.train import TrainCommand

    command = parse(TrainCommand, ["--config", str(path), "--data", "d", "--out", "o", "--name", "n"], "vdsm train")
    assert command.training.stage1.learning_rate == suggested["values"][RATE]
    assert command.training.stage1.steps == Recipe().training.stage1.steps
    assert suggested["run"] == run_name(Space(sweep.space, Recipe()).recipe(suggested["values"], 0.1))


def test_a_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    with pytest.raises(UserError) as error:
        studies.storage_of("postgresql://user:geheim@127.0.0.1:1/optuna")
    assert "postgresql" in str(error.value)
    assert "geheim" not in str(error.value)


def test_a_driver_that_lost_the_lock_of_its_sweep_records_nothing_more(tmp_path: Path) -> None:
    sweep = sweep_of()
    study = opened(tmp_path, sweep)
    one = search(study, sweep)
    one.suggest("a")
    before = (tmp_path / "study.journal").read_bytes()

    def lost() -> None:
        raise StorageError("another process took over")

    with fenced(Fence("anywhere", lost)):
        one.on_trial_complete("a", {"disentanglement": 0.5})
        one.on_trial_complete("a", error=True)
        with pytest.raises(StorageError, match="another process took over"):
            one.suggest("b")
        with pytest.raises(StorageError, match="another process took over"):
            check_lock()
    assert (tmp_path / "study.journal").read_bytes() == before


def test_a_sweep_without_a_complete_trial_is_an_error_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = sweep_of(trials=1)
    study = opened(tmp_path, sweep)
    one = search(study, sweep)
    one.suggest("a")
    one.on_trial_complete("a", {"error": "the loss is NaN"})
    context = SweepContext(sweep=sweep, data="", url=str(tmp_path), judge=None)
    with pytest.raises(UserError, match="no trial of s is complete") as caught:
        write_results(study, None, Space(sweep.space, Recipe()), context)
    assert "the first one failed: the loss is NaN; fix the cause" in str(caught.value)
    assert "0 trials complete, 1 failed" in capsys.readouterr().out
    assert "the loss is NaN" in (tmp_path / "sweep.html").read_text()
    assert not (tmp_path / "best.yaml").exists()
