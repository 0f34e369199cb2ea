"""report.html: one file with every picture inside, which asks nothing of the network."""

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from cluster import storage
from pipeline.report import grids
from pipeline.report.curves import panels, read_records
from pipeline.report.pictures import Frames, data_uri, mosaic, webp
from pipeline.report.table import headline, percent
from vdsm.evaluation.clips import ACTION, LabelledClips
from vdsm.evaluation.judge import Progress
from vdsm.evaluation.measurement import Measurement

if TYPE_CHECKING:
    from pipeline.evaluate import EvaluateCommand
    from pipeline.evaluation_inputs import Inputs

FPS = 8.0
"""Frames per second at which the report plays clips."""
PER_BLOCK = 10
"""Identities side by side in one block of the action-transfer grid."""
SHOWN = 10
"""Clips in the other pictures."""
WORST = 12
"""Wrong swaps shown."""


@dataclass(frozen=True)
class Picture:
    """A moving picture in the page."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class WrongSwap:
    """A swap that the judge does not see as asked for."""

    picture: Picture
    asked: list[tuple[str, str, str]]
    """(factor, value asked for, value judged) of the wrong factors."""


def write_report(
    command: "EvaluateCommand", inputs: "Inputs", measured: Measurement, metrics: dict[str, Any], progress: Progress
) -> None:
    """Draw the pictures and write report.html beside metrics.json."""
    test, decoder, sequence = inputs.test, measured.decoder, inputs.sequence_stage
    actions = grids.action_donors(test)
    most = max(1, command.evaluation.grid_clips // len(actions))
    people = grids.identity_donors(test, most)
    blocks = []
    rows = grids.transfer_grid(decoder, test, actions, people, sequence, progress)
    for start in range(0, len(people), PER_BLOCK):
        block = [[row[0], *row[1 + start : 1 + start + PER_BLOCK]] for row in rows]
        blocks.append(
            _picture(
                mosaic(block, header_row=True, header_column=True),
                f"action transfer, identities from number {start + 1}",
            )
        )
    sample = people[:SHOWN]
    prior = grids.prior_rows(decoder, test, actions, sample[: len(actions)], SHOWN - 1, sequence, command.seed)
    html = render(
        metrics,
        title=inputs.info["run"].rstrip("/").rpartition("/")[2],
        donors=[test.vocabulary[ACTION][int(test.labels[ACTION][index])] for index in actions],
        blocks=blocks,
        identities_shown=len(people),
        reconstructions=_picture(
            mosaic(grids.reconstruction_rows(decoder, test, sample, sequence)), "clips and reconstructions"
        ),
        prior={
            name: _picture(mosaic(rows, header_column=True), f"prior samples: {name}") for name, rows in prior.items()
        },
        wrong=wrong_swaps(test, measured, sequence),
        panels=panels(_training_records(inputs)),
    )
    storage.write_bytes(storage.join(command.out, "report.html"), html.encode())


def render(metrics: dict[str, Any], **pictures: Any) -> str:
    """The page. Every number in it is taken from `metrics`."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = percent
    template = environment.from_string(_file("report.html.j2"))
    counts = np.array(metrics["confusion"][ACTION])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return template.render(
        metrics=metrics,
        style=Markup(_file("report.css")),
        rows=headline(metrics),
        groups=groups(metrics),
        confusion=shares.tolist(),
        configuration=yaml.safe_dump(
            metrics["provenance"]["recipe"], sort_keys=False, default_flow_style=None, width=100
        ),
        **pictures,
    )


def groups(metrics: dict[str, Any]) -> dict[str, list[tuple[str, dict[str, Any], bool]]]:
    """All figures that are not in the headline, by their first word: (name, figure, whether it is a share)."""
    in_headline = {row.name for row in headline(metrics)}
    found: dict[str, list[tuple[str, dict[str, Any], bool]]] = {}
    for name, figure in metrics["figures"].items():
        if name not in in_headline:
            group = name.partition(".")[0]
            title = TITLES.get(group, "Inception score and entropies of the judged action (nats)")
            share = group in ("judge", "swap", "leakage", "pose_swap", "pose_leakage", "prior", "consistency")
            found.setdefault(title, []).append((name, figure, share))
    return found


TITLES = {
    "judge": "The judge on real test clips",
    "swap": "Swaps through the dynamics code",
    "pose_swap": "Swaps of the poses of every frame (stage 1 alone)",
    "leakage": "Swaps through the dynamics code: what was to be replaced and still shows",
    "pose_leakage": "Swaps of the poses: what was to be replaced and still shows",
    "prior": "Swaps with one code drawn from the prior",
    "reconstruction": "Reconstruction (PSNR in dB)",
    "still": "The clip's mean frame repeated: the best without motion, to compare with",
    "consistency": "The judge says the same of a clip and of its reconstruction",
    "cycle": "Cycle without labels: the swap's own codes are nearer to the donor's than to others'",
    "experts": "Experts in use: exp of the entropy of the mean static code",
}


def wrong_swaps(test: LabelledClips, measured: Measurement, sequence: bool) -> list[WrongSwap]:
    """The pairs with the most wrong factors: A, B and what was decoded, with the judge's words."""
    chosen = measured.swapped.wrong[:WORST]
    if not len(chosen):
        return []
    sources, targets = measured.swapped.pairs.dynamics_of[chosen], measured.swapped.pairs.static_of[chosen]
    outputs = grids.decode_cells(measured.decoder, sources, targets, sequence, "drawing wrong swaps")
    length = measured.decoder.length
    found = []
    for place, a, b, output in zip(chosen, sources, targets, outputs, strict=True):
        picture = _picture(mosaic([[*grids.real(test, [a, b], length), output]]), "A, B and the swap")
        asked = []
        for name, judged in measured.swapped.judged.items():
            wanted = int(test.labels[name][a if name == ACTION else b])
            if int(judged[place]) != wanted:
                names = test.vocabulary[name]
                asked.append((name, names[wanted], names[int(judged[place])]))
        found.append(WrongSwap(picture, asked))
    return found


def _picture(clip: Frames, alt: str) -> Picture:
    return Picture(data_uri(webp(clip, FPS)), clip.shape[2], clip.shape[1], alt)


def _training_records(inputs: "Inputs") -> list[dict[str, Any]]:
    place = storage.join(inputs.info["run"], "metrics.jsonl")
    return read_records(storage.read_bytes(place).decode(errors="replace")) if storage.exists(place) else []


def _file(name: str) -> str:
    return resources.files("pipeline.report").joinpath(name).read_text(encoding="utf-8")
