"""The plan of a sweep: what is searched and what each trial will do."""

from pipeline.tuning.space import Space
from pipeline.tuning.sweep import Sweep


def plan_trials(space: Space, sweep: Sweep, data: str) -> list[str]:
    """Return what a trial of the first round will do, one line per stage.

    Args:
        space: the searched settings of a recipe.
        sweep: settings of the search.
        data: the dataset, a path or URL.

    Raises:
        UserError: the data is missing or does not fit the recipe.
    """
    # torch takes seconds to import, which --help and invalid input should not wait for.
    from cluster.errors import UserError
    from pipeline.training.job import Job
    from pipeline.training.plan import make_plan
    from preprocessing.dataset.reader import ClipDataset

    recipe = space.recipe({}, sweep.steps_fraction)
    clips = ClipDataset(data, "train")
    job = Job(model=recipe.model, training=recipe.training, seed=recipe.seed, clips=clips)
    try:
        return [str(plan) for plan in make_plan(job)]
    except ValueError as error:
        raise UserError(f"{data}: {error}") from error


def describe_sweep(sweep: Sweep, stages: list[str]) -> list[str]:
    """Return a description of a sweep whose trials do what `stages` describe, line by line."""
    lines = [f"searched: {path}: {parameter.describe()}" for path, parameter in sweep.space.items()]
    lines.append(f"{sweep.trials} trials, ranked by {' and '.join(sweep.objectives)}, each of:")
    lines += stages
    if sweep.promoted and sweep.steps_fraction < 1:
        lines.append(f"then the best {sweep.promoted} with all steps")
    return lines
