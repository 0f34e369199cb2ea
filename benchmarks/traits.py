"""How well one trait of a built-in figure is changed alone, as on the studio's page Explore.

    python benchmarks/traits.py --json

Each of the test figures has each of its attributes moved to its next value, doing two actions. The moved clip is
compared with the figure that the generator draws with that value, in the same phase and speed; neither is used to find
the step. PSNR in dB, means over clips: `before` is the clip before the step, `moved` after it; `ceiling` is the clip
before the step compared with the figure that it shows.
"""

import dataclasses
from typing import Any

import numpy as np
from arguments import machine, parser, show
from numpy.typing import NDArray

from pipeline.web_studio.examples import of_figures
from pipeline.web_studio.factors import Walk
from pipeline.web_studio.settings import StudioSettings
from pipeline.web_studio.studio_model import StudioModel
from preprocessing.sources import figures
from preprocessing.sources.config import FiguresConfig
from preprocessing.sources.figure_motion import joints_at

ACTIONS = ("walk", "kick")


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the PSNR of two clips, in dB."""
    return float(-10 * np.log10((((one.astype(float) - other.astype(float)) / 255) ** 2).mean()))


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--figures", type=int, default=12, help="test figures")
    args = options.parse_args()
    model, source = StudioModel(StudioSettings()), figures.FiguresSource(FiguresConfig(clip_frames=8), seed=0)
    examples, groups = of_figures(8), model.trained.model.config.static_groups
    factors = examples.factors(model.static_codes(examples.clips))
    keys = [item.key for item in source.items() if item.split == "test"][: args.figures]
    scores: dict[str, dict[str, list[float]]] = {
        factor.name: {"ceiling": [], "before": [], "moved": []} for factor in factors
    }
    for key in keys:
        for action in ACTIONS:
            figure = source.figure(key)
            joints = joints_at(action, source._phases(key, list(figures.ACTIONS).index(action)))
            drawn = figures.render(figure, joints)
            (reading,) = model.encode([drawn])
            for factor in factors:
                values = figures.VOCABULARY[factor.name]
                value = (getattr(figure, factor.name) + 1) % len(values)
                if values[value] not in factor.ends:
                    continue
                expected = figures.render(dataclasses.replace(figure, **{factor.name: value}), joints)
                moved = Walk(factor, values[value], 1.0, groups).apply(reading.code.static)
                dynamics = reading.code.dynamics
                before, after = model.decode([(reading.code.static, dynamics, 8), (moved, dynamics, 8)])
                own = scores[factor.name]
                own["ceiling"].append(psnr(before, drawn))
                own["before"].append(psnr(before, expected))
                own["moved"].append(psnr(after, expected))
    found: dict[str, Any] = {
        name: {"clips": len(own["moved"]), **{f"{kind}_db": round(float(np.mean(one)), 1) for kind, one in own.items()}}
        for name, own in scores.items()
    }
    show(found | {"figures": len(keys), "machine": machine()}, as_json=args.json)


if __name__ == "__main__":
    main()
