"""Why a setting has the value that it has, where that does not depend on the dataset."""

from cluster.cli.settings import descriptions, settings_of
from pipeline.recipe import Recipe

_SMALL = "about a twentieth of the published model, for CPUs"

REASONS = {
    "model.static_prior_scale": "with the published 1/K, choosing an expert costs tens of nats",
    "model.dynamics_prior_scale": "with the published 1/D, choosing an action costs tens of nats",
    "model.expert_init": "independent kernels cancel in the even blend of an untrained model",
    "model.dynamics_init": "with torch's default and this prior scale, an untrained code is nearly all noise",
    "model.dynamics_size": "enough for every dataset in docs/results",
    "model.encoder_downsampling": "a quarter of the computation of `blur`",
    "model.encoder_init": "with torch's default the difference between frames almost vanishes in the encoder",
    "model.encoder_slope": "goes with `he`; measured in docs/model-options.md",
    "model.encoder_hidden": _SMALL,
    "model.static_hidden": _SMALL,
    "model.rnn_width": _SMALL,
    "model.rnn_layers": _SMALL,
    "model.rnn_dropout": "its masks depend on the number of workers; without it, results do not",
    "training.stage1.warmup_steps": "the first steps are too large for random weights",
    "training.stage1.final_rate_fraction": "ends with small steps, along a cosine",
    "training.stage1.gradient_clip": "a single batch cannot throw the weights off",
    "training.stage1.annealing.pose": "high at first, or poses hold who is seen; lower later, when they hold the pose",
    "training.stage1.annealing.static": "low: who is seen is worth its bits",
    "training.stage1.annealing.temperature": "experts are chosen early, and sharply at the end",
    "training.stage1.annealing.static_consistency": (
        "without it, the static code holds the action as well, although the decoder ignores it there"
    ),
    "training.stage1.annealing.motion_consistency": (
        "where each person is seen doing few things, poses would mean other things for other people"
    ),
    "training.stage2.warmup_steps": "as in stage 1",
    "training.stage2.final_rate_fraction": "as in stage 1",
    "training.stage2.gradient_clip": "as in stage 1",
    "training.stage2.annealing.pose": "poses come from stage 1 already",
    "training.stage2.annealing.static": "as at the end of stage 1",
    "training.stage2.annealing.dynamics": "low: what happens is worth its bits",
    "training.stage2.annealing.dynamics_consistency": "without it, the dynamics code holds some of the identity",
    "training.stage2.annealing.pose_distillation": (
        "where something moves far, frames that do not overlap give no gradient towards the right pose; those of stage "
        "1 do"
    ),
}


def reason_of(path: str, recipe: str) -> str:
    """Return why the setting at a dotted path has the value of a recipe in configs/, or else what it means."""
    return REASONS.get(path) or f"as in configs/{recipe}. {_meaning(path)}"


def _meaning(path: str) -> str:
    *sections, name = path.split(".")
    owner: type = Recipe
    for section in sections:
        owner = settings_of(owner)[section].section or owner
    return descriptions(owner).get(name, "").partition(". ")[0].rstrip(".").replace("`", "")
