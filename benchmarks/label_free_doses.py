"""How the scores without labels and the judged ones follow a fault of known size in a finished run.

    vdsm quickstart --out QUICKSTART
    python benchmarks/label_free_doses.py --run QUICKSTART/runs/figures --data QUICKSTART/data \
        --judges QUICKSTART/report

Swaps are decoded from mixtures of codes. `static` at dose d: (1 - d) of the static code of B and d of that of A, which
should not be there. `dynamics` at dose d: (1 - d) of the dynamics code of A and d of that of B. `still` at dose d:
every pose moved by d towards the mean pose of its clip, so that the motion gets smaller. Prints one JSON object per
dose.
"""

import json

import torch
from arguments import add_threads, run_parser
from label_free import AT_ONCE, measure
from torch import Tensor

from pipeline.evaluation.inputs import load
from pipeline.evaluation.judge_cache import load_or_train
from pipeline.runs.store import data_hash
from preprocessing.dataset.reader import ClipDataset
from vdsm.evaluation.judge import JudgeConfig
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.pairs import Indices
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.traits import traits_of_clips

DOSES = (0.25, 0.5, 0.75, 1.0)
FAULTS = ("static", "dynamics", "still")


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    command = run_parser(__doc__, pairs=300, of="test")
    command.add_argument("--judges", required=True, help="folder in which the trained judge is cached")
    add_threads(command, 1)
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    inputs = load(options.run, options.data)
    train, length, settings = ClipDataset(options.data, "train"), inputs.clip_frames, inputs.recipe.evaluation
    config = JudgeConfig(
        steps=settings.judge_steps, batch_clips=settings.judge_batch_clips, clip_frames=length, seed=inputs.recipe.seed
    )
    judge, _ = load_or_train(options.judges, train, data_hash(train.manifest), config, NO_PROGRESS)
    codes = encode_clips(inputs.model, inputs.test, length, AT_ONCE)
    decoder = SwapDecoder(inputs.model, codes, length, AT_ONCE)
    real = traits_of_clips(inputs.test, length, AT_ONCE, NO_PROGRESS)
    for fault, dose in [("none", 0.0), *((fault, dose) for fault in FAULTS for dose in DOSES)]:

        def swap(first: Indices, second: Indices, fault: str = fault, dose: float = dose) -> Tensor:
            static, dynamics = codes.static[second], codes.dynamics[first]
            if fault == "static":
                static = torch.lerp(static, codes.static[first], dose)
            if fault == "dynamics":
                dynamics = torch.lerp(dynamics, codes.dynamics[second], dose)
            poses = inputs.model.poses(dynamics, length)
            if fault == "still":
                poses = torch.lerp(poses, poses.mean(1, keepdim=True).expand_as(poses), dose)
            return inputs.model.decode(poses, static)

        scores = measure(decoder, swap, 2, judge, inputs.test, real, options.pairs)
        print(json.dumps({"fault": fault, "dose": dose, **scores}), flush=True)


if __name__ == "__main__":
    main()
