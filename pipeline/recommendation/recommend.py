"""From a dataset to the text of its recipe."""

from cluster.errors import UserError
from pipeline.recommendation.choices import choose
from pipeline.recommendation.doubts import doubts
from pipeline.recommendation.hardware import Hardware, this_machine
from pipeline.recommendation.survey import survey
from pipeline.recommendation.text import recipe_text
from pipeline.recommendation.timing import seconds_per_step
from pipeline.training.job import Job
from pipeline.training.plan import make_plan
from preprocessing.dataset.manifest import clips_of
from preprocessing.dataset.reader import ClipDataset


def recommendation(
    data: str, measure_s: float, machine: Hardware | None = None, *, name: str = "mine.yaml"
) -> tuple[str, list[str]]:
    """Return the recipe for a dataset as YAML, and what is doubtful about the data.

    Args:
        data: the dataset, as an absolute path or URL.
        measure_s: seconds for which steps are measured; 0 measures none.
        machine: what the training will run on; by default this machine.
        name: path or URL of the recipe, for the command in its first lines.

    Raises:
        UserError: the data is missing, damaged, or cannot be trained on.
    """
    clips = ClipDataset(data, "train")
    if not len(clips):
        raise UserError(f"{data}: the training split has no clips; shard a source that has some")
    found = survey(clips, clips_of(clips.manifest, "test"))
    machine = machine or this_machine()
    draft = choose(found, machine)
    draft.warnings = doubts(found, draft)
    recipe = draft.recipe()
    pairs = found.pairs if recipe.training.stage1.pairing == "appearance" else None
    job = Job(model=recipe.model, training=recipe.training, seed=recipe.seed, clips=clips, pairs=pairs)
    try:
        plans = make_plan(job)
    except ValueError as error:
        raise UserError(f"{data}: {error}") from error
    times = seconds_per_step(job, measure_s)
    return recipe_text(draft, found, machine, plans, times, data, name), draft.warnings
