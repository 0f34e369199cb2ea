"""What is sampled from several densities of a run's codes, judged: the table of docs/results/priors.md.

    python benchmarks/priors.py --run RUN --data DATA --judges FOLDER --json

Fits each density to the codes of training clips, without labels, and decodes samples of it: static codes with the
dynamics codes of test clips, and dynamics codes with their static codes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from arguments import machine, run_parser, show
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pipeline.evaluation.judge_cache import load_or_train
from pipeline.runs.pairs import run_pairs
from pipeline.runs.store import data_hash, load_run
from pipeline.training import code_priors
from pipeline.training.code_density_fit import COMPONENTS, Floats
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job, stage_order
from preprocessing.dataset.reader import ClipDataset
from vdsm.code_density import FittedPriors
from vdsm.disentangler import Disentangler
from vdsm.evaluation.clips import ACTION
from vdsm.evaluation.judge import JudgeConfig, Verdicts
from vdsm.evaluation.judged_scores import combinations
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.outputs import SwapDecoder, VerdictCollector
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.scores import entropy_scores

BATCH = 32
Sampler = Callable[[int, torch.Generator], Tensor]


def main() -> None:
    """Fit, sample, judge and print."""
    command = run_parser(__doc__, pairs=1000, of="test")
    command.add_argument("--judges", required=True, help="folder of the judge, which is trained if it is not there")
    command.add_argument("--judge-steps", type=int, default=700, help="optimiser steps of the judge")
    command.add_argument("--seed", type=int, default=0, help="seed of the samples")
    options = command.parse_args()
    model, recipe, _ = load_run(options.run)
    model.eval()
    train, test = ClipDataset(options.data, "train"), ClipDataset(options.data, "test")
    length = recipe.training.stage2.clip_frames
    judge_config = JudgeConfig(steps=options.judge_steps, clip_frames=length)
    judge, _ = load_or_train(options.judges, train, data_hash(train.manifest), judge_config, NO_PROGRESS)
    job = Job(
        model=recipe.model, training=recipe.training, seed=recipe.seed, clips=train,
        pairs=run_pairs(recipe.training, train, options.run),
    )  # fmt: skip
    chosen = code_priors.prior_clips(stage_order(job, 2), recipe.training.prior_clips or 3000)
    fit, held = (code_priors.encode_posteriors(model, job, clips, DistributedContext()) for clips in chosen)
    decoder = SwapDecoder(model, encode_clips(model, test, length), length)
    rng = np.random.default_rng(options.seed)
    donors = rng.integers(0, len(test), options.pairs)
    seen = combinations(train, judge)
    action_shares = np.bincount(test.labels[ACTION], minlength=judge.values[ACTION]) / len(test)

    def judged(static: Tensor | None, dynamics: Tensor | None) -> dict[str, float]:
        collector = VerdictCollector(judge)
        with torch.inference_mode():
            for start in range(0, len(donors), BATCH):
                batch = slice(start, start + BATCH)
                d = decoder.codes.dynamics[donors[batch]] if dynamics is None else dynamics[batch]
                s = decoder.codes.static[donors[batch]] if static is None else static[batch]
                collector(model.decode(model.poses(d, length), s))
        return summary(collector.verdicts, seen, action_shares)

    priors, _ = code_priors.fit_priors(model, 2, fit, held, recipe.seed)
    rows: dict[str, Any] = {"codes of test clips": judged(None, None)}
    for name, sampler in static_samplers(model, fit, held, priors).items():
        rows[f"static: {name}"] = judged(sampler(len(donors), torch.Generator().manual_seed(options.seed)), None)
    for name, sampler in dynamics_samplers(model, fit, held, priors).items():
        rows[f"dynamics: {name}"] = judged(None, sampler(len(donors), torch.Generator().manual_seed(options.seed)))
    show(rows | {"samples": len(donors), "machine": machine()}, as_json=options.json)


def static_samplers(
    model: Disentangler, train: code_priors.CodePosteriors, held: code_priors.CodePosteriors, priors: FittedPriors
) -> dict[str, Sampler]:
    """Return samplers of static codes, by the name of their density."""
    loc, held_loc = train.static[0].numpy(), held.static[0].numpy()
    groups = np.split(np.arange(loc.shape[1]), model.config.static_groups)

    def code(latent: Tensor) -> Tensor:
        return model.frame_model.static_code(latent, model.temperature)

    return {
        "published": model.sample_static,
        "one Gaussian": lambda n, g: code(_mixture(loc, held_loc, (1,), n, g)),
        "mixture of each group": lambda n, g: code(
            torch.cat([_mixture(loc[:, own], held_loc[:, own], COMPONENTS, n, g) for own in groups], 1)
        ),
        "one mixture": lambda n, g: code(_mixture(loc, held_loc, COMPONENTS, n, g)),
        "factors (fitted)": lambda n, g: code(priors.static.sample(n, g)),
    }


def dynamics_samplers(
    model: Disentangler, train: code_priors.CodePosteriors, held: code_priors.CodePosteriors, priors: FittedPriors
) -> dict[str, Sampler]:
    """Return samplers of dynamics codes, by the name of their density."""
    loc, held_loc = train.dynamics[0].numpy(), held.dynamics[0].numpy()
    assert priors.dynamics is not None
    return {
        "published": model.sample_dynamics,
        "one Gaussian": lambda n, g: _mixture(loc, held_loc, (1,), n, g),
        "one mixture": lambda n, g: _mixture(loc, held_loc, COMPONENTS, n, g),
        "factors (fitted)": priors.dynamics.sample,
    }


def _mixture(
    codes: Floats, held: Floats, components: tuple[int, ...], count: int, generator: torch.Generator
) -> Tensor:
    """Sample a mixture with full covariances, with the number of components of the highest validation likelihood."""
    scale = codes.std() or 1.0
    models = [
        GaussianMixture(number, reg_covar=1e-4, random_state=0).fit(codes / scale)
        for number in components
        if number <= len(codes) // 20 or number == 1
    ]
    best = max(models, key=lambda one: float(one.score(held / scale)))
    best.random_state = int(torch.randint(2**31, (), generator=generator))
    return torch.from_numpy(scale * np.random.default_rng(best.random_state).permutation(best.sample(count)[0])).float()


def summary(verdicts: Verdicts, seen: Any, action_shares: Floats) -> dict[str, float]:
    """Summarise verdicts: inception score of the action, mean entropy of each factor, and what combinations occur."""
    clusters = np.arange(len(verdicts.action))
    attributes = {name: values for name, values in verdicts.values.items() if name != ACTION}
    drawn = list(zip(*(values.tolist() for values in attributes.values()), strict=True))
    shares = np.bincount(verdicts.values[ACTION], minlength=len(action_shares)) / len(clusters)
    return {
        "is": round(entropy_scores(verdicts.action, clusters, 0)["is"].value, 3),
        "largest_gap_of_action_shares": round(float(np.abs(shares - action_shares).max()), 3),
        **{f"h_{name}": round(float(values.mean()), 3) for name, values in verdicts.entropies.items()},
        **{f"values_{name}": len(set(values.tolist())) for name, values in attributes.items()},
        "new_combinations": round(float(np.mean([values not in seen for values in drawn])), 3),
    }


if __name__ == "__main__":
    main()
