"""report.html: one file with every picture inside, which asks nothing of the network.

Every number in it is taken from metrics.json.
"""

import base64
import dataclasses
import functools
import hashlib
import shlex
from collections.abc import Callable, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from cluster.cli.settings import option
from cluster.storage import api as storage
from pipeline.report.curves import Panel, panels, read_records
from pipeline.report.gallery import Shown, draw, draw_samples, fps_of
from pipeline.report.grids import Indices
from pipeline.report.latent_map import SIZE, marks
from pipeline.report.pictures import Frames, webp
from pipeline.report.table import Metric, Metrics, direction, headline, interval, is_share, percent, written
from vdsm.evaluation.clips import LabelledClips
from vdsm.evaluation.measurement import Measurement, Swapped
from vdsm.evaluation.progress import Progress

if TYPE_CHECKING:
    from pipeline.evaluate import EvaluateCommand
    from pipeline.evaluation.inputs import EvaluationInputs

Made = Callable[[Indices], Sequence[Frames]]
"""Gives the clips that another system made of the pairs at some positions."""
TITLES = {
    "judge": "The judge on real test clips",
    "swap": "Swaps through the dynamics code",
    "leakage": "Swaps through the dynamics code: what was replaced and still shows",
    "pose_swap": "Swaps of the poses of every frame (stage 1 alone)",
    "pose_leakage": "Swaps of the poses: what was replaced and still shows",
    "prior": "Swaps with one code drawn from the prior",
    "probe": "Probes: what can be read from a code",
    "reconstruction": "Reconstruction (PSNR in dB)",
    "still": "The clip's mean frame repeated: the best without motion, to compare with",
    "consistency": "The judge says the same of a clip and of its reconstruction",
    "cycle": "Cycle without labels: the swap's own codes are nearer to the donor's than to others'",
    "frechet": "Fréchet distance",
    "elbo": "ELBO, not annealed",
    "experts": "Experts in use: exp of the entropy of the mean static code",
}
"""Groups of figures by the first word of their names."""
OTHER = "Inception score and entropies of the judged action (nats)"
NO_LABELS = "The clips have no action label, so that no judge can say what a swap shows."
MOST_CONFUSED = 20
"""Most values of a factor whose confusion matrix is drawn."""


def write_report(
    command: "EvaluateCommand", inputs: "EvaluationInputs", measured: Measurement, metrics: Metrics, progress: Progress
) -> None:
    """Draw the pictures and write report.html beside metrics.json; with it transfer.webp, the first block of the
    action-transfer matrix as a picture that moves anywhere, and training.jsonl, the log that the curves are of."""
    shown = draw(inputs.test, measured, inputs.sequence_stage, command.evaluation.grid_clips, command.seed, progress)
    log = _training_log(inputs.info["run"])
    html = render(
        metrics,
        shown,
        title=inputs.info["run"].rstrip("/").rpartition("/")[2],
        drawn=panels(read_records(log.decode(errors="replace"))),
        command=again(command, inputs),
    )
    if shown.transfer is not None:
        storage.write_bytes(
            storage.join(command.out, "transfer.webp"), webp(shown.transfer.shareable, fps_of(inputs.test))
        )
    storage.write_bytes(storage.join(command.out, "training.jsonl"), log)
    storage.write_bytes(storage.join(command.out, "report.html"), html.encode())


def again(command: "EvaluateCommand", inputs: "EvaluationInputs") -> str:
    """The command that measures the same again: what it does not say is taken from the run's recipe."""
    words = ["vdsm", "evaluate", "--run", str(command.run), "--data", command.data, "--out", "FOLDER"]
    for name, value in (("--sheets", command.sheets), ("--inception", command.inception)):
        words += [name, str(value)] if value else []
    words += ["--other-data"] if command.other_data else []
    if command.seed != inputs.recipe.seed:
        words += ["--seed", str(command.seed)]
    of_run = inputs.recipe.evaluation.model_dump()
    for name, value in command.evaluation.model_dump().items():
        if value != of_run[name]:
            words += [option(f"evaluation.{name}"), str(value)]
    return shlex.join(words)


def write_samples_report(
    out: str, samples: str, clips: LabelledClips, swapped: Swapped, made: Made, metrics: Metrics
) -> None:
    """The report on clips that another system made.

    Args:
        out: folder for report.html.
        samples: folder of the clips.
        clips: the test split.
        swapped: its pairs and what the judge said.
        made: gives the samples of the pairs at some positions.
        metrics: what metrics.json holds.
    """
    source = metrics["provenance"]
    shown = draw_samples(clips, swapped, made, source["clip_frames"])
    command = f"vdsm evaluate --samples {shlex.quote(samples)} --data {shlex.quote(source['data'])} --out FOLDER"
    html = render(metrics, shown, samples.rstrip("/").rpartition("/")[2], [], command)
    storage.write_bytes(storage.join(out, "report.html"), html.encode())


def render(metrics: Metrics, shown: Shown, title: str, drawn: list[Panel], command: str = "") -> str:
    """The page.

    Args:
        metrics: what metrics.json holds.
        shown: its pictures.
        title: what was measured.
        drawn: curves of the training; may be none.
        command: what makes the same report again.
    """
    rows = headline(metrics)
    recipe = metrics["provenance"].get("recipe", {})
    return fill(
        "report.html.j2",
        metrics,
        title=title,
        shown=dataclasses.replace(shown, absent={"headline": NO_LABELS, **shown.absent}),
        lede=lede(metrics),
        tiles=tiles(metrics),
        rows=rows,
        controls=list(rows[0].controls) if rows else [],
        probes=probes(metrics),
        confusions=confusions(metrics),
        groups=groups(metrics),
        marks=marks(),
        map_size=SIZE,
        expert_groups=recipe.get("model", {}).get("static_groups", 1),
        panels=drawn,
        facts=facts(metrics),
        command=command,
        configuration=yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=100) if recipe else "",
    )


def fill(template: str, metrics: Metrics, **values: Any) -> str:
    """A template of this package, with the style, the script and the ways to write a figure."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(file)
    )
    environment.filters |= {
        "percent": percent,
        "thousands": "{:,}".format,
        "figure": lambda value, name: written(value, is_share(name, metrics)),
        "interval": lambda figure, name: interval(figure, is_share(name, metrics)),
        "excess": _excess,
    }
    script = file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        metrics=metrics, style=Markup(file("page.css")), script=Markup(script), script_sha256=digest, **values
    )


@functools.cache
def file(name: str) -> str:
    """A file of this package."""
    return resources.files("pipeline.report").joinpath(name).read_text(encoding="utf-8")


def lede(metrics: Metrics) -> str:
    """What was found, in one or two sentences."""
    source, figures = metrics["provenance"], metrics["figures"]
    measured = (
        f"Measured on {source['test_clips']:,} test clips of {source['test_identities']:,} identities that the model "
        "has never seen."
    )
    prefix = "" if "swap.action.accuracy" in figures else "pose_"
    action, joint = figures.get(f"{prefix}swap.action.accuracy"), figures.get(f"{prefix}swap.static.joint")
    if action is None:
        return f"{measured} The clips have no action label: what follows needs none."
    text = f"{measured} When one identity is given the action of another, the judge sees the action asked for in "
    text += f"{percent(action['value'])} of the cases (chance {percent(action['chance'])})"
    if joint is None:
        return text + "."
    return (
        f"{text} and all attributes of the identity at once in {percent(joint['value'])} "
        f"(chance {percent(joint['chance'])})."
    )


def tiles(metrics: Metrics) -> list[dict[str, Any]]:
    """The few figures that say most: name, title, the figure, whether lower is better."""
    figures = metrics["figures"]
    prefix = "" if "swap.action.accuracy" in figures else "pose_"
    leaks = {name: figure for name, figure in figures.items() if name.startswith(f"{prefix}leakage.")}
    chosen = [("action under swap", f"{prefix}swap.action.accuracy")]
    chosen += [("all attributes at once", f"{prefix}swap.static.joint")]
    if leaks:
        worst = max(leaks, key=lambda name: leaks[name]["value"] - leaks[name]["chance"])
        chosen.append((f"worst leak: {worst.rpartition('.')[2]}", worst))
    chosen += [("reconstruction, PSNR in dB", "reconstruction.psnr")]
    chosen += [("nearest static code", "cycle.static"), ("nearest dynamics code", "cycle.dynamics")]
    return [
        {
            "title": title,
            "name": name,
            "figure": figures[name],
            "lower_is_better": direction(name) < 0,
            "share": is_share(name, metrics) or name.startswith("cycle."),
        }
        for title, name in chosen
        if name in figures
    ][:4]


def groups(metrics: Metrics) -> dict[str, list[tuple[str, Metric]]]:
    """All figures by the first word of their names."""
    found: dict[str, list[tuple[str, Metric]]] = {}
    for name, figure in metrics["figures"].items():
        found.setdefault(TITLES.get(name.partition(".")[0], OTHER), []).append((name, figure))
    return found


def probes(metrics: Metrics) -> dict[str, Any]:
    """`probe.<code>.<factor>.<kind>` as a table: its columns, and per factor the names of its figures or None."""
    names = [name.split(".") for name in metrics["figures"] if name.startswith("probe.") and name.count(".") == 3]
    if not names:
        return {}
    codes, factors, kinds = (list(dict.fromkeys(words[place] for words in names)) for place in (1, 2, 3))
    known = ["static", "dynamics", "pose"]
    codes.sort(key=lambda code: known.index(code) if code in known else len(known))
    rows = {}
    for factor in factors:
        wanted = [f"probe.{code}.{factor}.{kind}" for code in codes for kind in kinds]
        rows[factor] = [name if name in metrics["figures"] else None for name in wanted]
    return {"codes": codes, "kinds": kinds, "rows": rows}


def confusions(metrics: Metrics) -> list[dict[str, Any]]:
    """Per factor with a confusion matrix its values and the shares of each row."""
    found = []
    for factor, counts in metrics["confusion"].items():
        names = metrics["vocabulary"].get(factor, [])
        table = np.array(counts, dtype=np.float64)
        if 1 < len(names) <= MOST_CONFUSED and table.shape == (len(names), len(names)):
            asked = np.flatnonzero(table.sum(1))
            seen = np.flatnonzero(table.sum(0) + table.sum(1))
            shares = table[asked][:, seen] / table[asked].sum(1, keepdims=True)
            found.append(
                {
                    "factor": factor,
                    "names": [names[place] for place in asked],
                    "columns": [names[place] for place in seen],
                    "shares": shares.tolist(),
                }
            )
    return found


def facts(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Provenance: (what, text, hash), where something is known."""
    source = metrics["provenance"]
    step = f" (stage {source['stage']}, step {source['step']:,})" if source.get("stage") else ""
    unfinished = "" if source.get("finished", True) else ", training not finished"
    trained_on = source.get("trained_on_data_sha256", source["data_sha256"])
    other = "; not the data of the training" if source["data_sha256"] != trained_on else ""
    judge = source.get("judge") or {}
    versions = ", ".join(f"{name} {version}" for name, version in source["versions"].items())
    found = [
        ("run", f"{source.get('run', '')}{step}{unfinished}", ""),
        ("samples", source.get("samples", ""), source.get("samples_sha256", "")),
        ("checkpoint", "SHA-256", source.get("checkpoint_sha256", "")),
        ("static codes", f"fitted to their clips by {refined(metrics)} gradient steps" if refined(metrics) else "", ""),
        ("data", f"{source['data']}{other}", source["data_sha256"]),
        ("pairs", "SHA-256", source.get("pairs_sha256", "")),
        (
            "judge",
            f"{judge['steps']:,} steps on real training clips" if judge.get("steps") else "",
            judge.get("key", ""),
        ),
        ("seed", str(source["seed"]), ""),
        ("software", versions, ""),
        ("threads", str(source.get("threads", "")), ""),
    ]
    return [(name, text, digest) for name, text, digest in found if digest or (text and text != "SHA-256")]


def refined(metrics: Metrics) -> int:
    """Gradient steps by which the static codes were fitted to their clips."""
    return int(metrics["provenance"].get("evaluation", {}).get("refinement_steps", 0))


def _excess(value: float, chance: float | None) -> float:
    """How far above chance a share is, from 0 (chance) to 1 (always right)."""
    floor = chance or 0.0
    return round(min(max((value - floor) / max(1 - floor, 1e-9), 0.0), 1.0), 3)


def _training_log(run: str) -> bytes:
    place = storage.join(run, "metrics.jsonl")
    return storage.read_bytes(place) if storage.exists(place) else b""
