"""Text and tables of the report, derived from metrics.json: headline, tiles, groups, probes, confusions, provenance."""

from dataclasses import dataclass

import numpy as np

from pipeline.report.metric_format import Metric, Metrics, direction, is_share, percent
from pipeline.report.table import headline, swap_prefix
from pipeline.report.without_labels import label_free_sentence

GROUPS = {
    "judge": "Accuracy of the judge on real test clips",
    "swap": "Swaps: the action of one clip, the identity of another",
    "leakage": "Leakage in swaps: the replaced factor is still visible",
    "pose_swap": "Swaps of the poses of every frame (stage 1 alone)",
    "pose_leakage": "Leakage in swaps of the poses: the replaced factor is still visible",
    "prior": "Swaps with one code sampled from the prior",
    "probe": "Probes: what can be predicted from a code",
    "reconstruction": "Reconstruction (PSNR in dB)",
    "still": "Baseline without motion: the mean frame of the clip, repeated",
    "consistency": "Agreement of the judge on a clip and on its reconstruction",
    "likeness": "Likeness without labels: whose appearance and whose motion transfers show",
    "moving": "Sharpness: fidelity on the pixels that move (PSNR and gain over the first frame in dB)",
    "smoothness": "Change over time, relative to real clips",
    "cycle": "Cycle consistency without labels: the codes of a swap are nearest to those of its donors",
    "dci": "DCI: what each number of the codes is about, by importances of random forests",
    "exploration": "Exploration: what swaps of the part of the codes that is about one factor change",
    "frechet": "Fréchet distance",
    "elbo": "ELBO, not annealed",
    "experts": "Experts in use: exponential of the entropy of the mean static code",
}
"""Titles of the groups of metrics, by the first part of their names."""
OTHER_GROUP = "Inception score and entropies of the judged action (nats)"
MAX_TILES = 4
MAX_CONFUSION_VALUES = 20
"""Maximum number of values of a factor whose confusion matrix is shown."""


@dataclass(frozen=True)
class Tile:
    """One of the most informative metrics."""

    title: str
    name: str
    metric: Metric
    lower_is_better: bool
    share: bool
    """Whether it lies between 0 and 1, so that a bar can show it."""
    leaks: bool = False
    """Whether it is a leak beyond what a perfect swap shows."""


@dataclass(frozen=True)
class ProbeTable:
    """The metrics `probe.<code>.<factor>.<kind>` with a row per factor and a column per code and kind."""

    codes: list[str]
    kinds: list[str]
    rows: dict[str, list[str | None]]
    """Factor -> names of its metrics; None where there is none."""


@dataclass(frozen=True)
class ConfusionTable:
    """The confusion matrix of a factor, without values that do not occur."""

    factor: str
    names: list[str]
    """Requested values, one per row."""
    columns: list[str]
    """Judged values, one per column."""
    shares: list[list[float]]
    """Share of each column in its row."""


@dataclass(frozen=True)
class Fact:
    """One line of the provenance."""

    name: str
    text: str
    sha256: str = ""


def headline_sentence(metrics: Metrics) -> str:
    """Return the main result in one or two sentences."""
    provenance, values = metrics["provenance"], metrics["figures"]
    measured = (
        f"Measured on {provenance['test_clips']:,} test clips of {provenance['test_identities']:,} identities that the "
        "model has never seen."
    )
    prefix = swap_prefix(metrics)
    action, joint = values.get(f"{prefix}swap.action.accuracy"), values.get(f"{prefix}swap.static.joint")
    if action is None:
        text = "The clips have no action label, so this page shows only metrics that need none."
        return " ".join(filter(None, (measured, label_free_sentence(metrics), text)))
    text = (
        f"{measured} When one identity is given the action of another, the judge recognises the requested action in "
        f"{percent(action['value'])} of the swaps (chance {percent(action['chance'])})"
    )
    if joint is None:
        return f"{text}."
    return (
        f"{text} and all attributes of the identity in {percent(joint['value'])} (chance {percent(joint['chance'])})."
    )


def tiles(metrics: Metrics) -> list[Tile]:
    """Return the few most informative metrics."""
    values = metrics["figures"]
    prefix = swap_prefix(metrics)
    leakage = {name: metric for name, metric in values.items() if name.startswith(f"{prefix}leakage.")}
    chosen = [("action under swap", f"{prefix}swap.action.accuracy")]
    chosen += [("all attributes under swap", f"{prefix}swap.static.joint")]
    if leakage:
        worst = max(leakage, key=lambda name: leakage[name]["value"] - leakage[name]["chance"])
        chosen.append((f"worst leakage: {worst.rpartition('.')[2]}", worst))
    judged = chosen[0][1] in values
    chosen += [("reconstruction, PSNR in dB", "reconstruction.psnr")] if judged else []
    chosen += [("looks like its donor", "likeness.identity"), ("moves like its donor", "likeness.action")]
    code = "self_swap" if "moving.self_swap.gain" in values else "poses"
    chosen += [("moving pixels, dB above a still", f"moving.{code}.gain")]
    chosen += [("motion relative to real clips", "smoothness.change")]
    chosen += [("nearest static code", "cycle.static"), ("nearest dynamics code", "cycle.dynamics")]
    leaking = {row.name for row in headline(metrics) if row.leaks}
    return [
        Tile(
            title, name, values[name], lower_is_better=direction(name) < 0,
            share=is_share(name, metrics) or name.startswith("cycle."), leaks=name in leaking,
        )
        for title, name in chosen
        if name in values
    ][:MAX_TILES]  # fmt: skip


def groups(metrics: Metrics) -> dict[str, list[tuple[str, Metric]]]:
    """Return all metrics as (name, metric) by the title of their group."""
    found: dict[str, list[tuple[str, Metric]]] = {}
    for name, metric in metrics["figures"].items():
        found.setdefault(GROUPS.get(name.partition(".")[0], OTHER_GROUP), []).append((name, metric))
    return found


def probes(metrics: Metrics) -> ProbeTable | None:
    """Return the table of the probes, or None if there are none."""
    values = metrics["figures"]
    names = [name.split(".") for name in values if name.startswith("probe.") and name.count(".") == 3]
    if not names:
        return None
    codes, factors, kinds = (list(dict.fromkeys(parts[position] for parts in names)) for position in (1, 2, 3))
    order = ["static", "dynamics", "pose"]
    codes.sort(key=lambda code: order.index(code) if code in order else len(order))
    rows = {}
    for factor in factors:
        row = [f"probe.{code}.{factor}.{kind}" for code in codes for kind in kinds]
        rows[factor] = [name if name in values else None for name in row]
    return ProbeTable(codes, kinds, rows)


def confusions(metrics: Metrics) -> list[ConfusionTable]:
    """Return the confusion matrix of each factor with at most MAX_CONFUSION_VALUES values."""
    found = []
    for factor, counts in metrics["confusion"].items():
        names = metrics["vocabulary"].get(factor, [])
        table = np.array(counts, dtype=np.float64)
        if 1 < len(names) <= MAX_CONFUSION_VALUES and table.shape == (len(names), len(names)):
            requested = np.flatnonzero(table.sum(1))
            occurring = np.flatnonzero(table.sum(0) + table.sum(1))
            shares = table[requested][:, occurring] / table[requested].sum(1, keepdims=True)
            rows, columns = [names[value] for value in requested], [names[value] for value in occurring]
            found.append(ConfusionTable(factor, rows, columns, shares.tolist()))
    return found


def provenance_facts(metrics: Metrics) -> list[Fact]:
    """Return the known facts of the provenance."""
    source = metrics["provenance"]
    step = f" (stage {source['stage']}, step {source['step']:,})" if source.get("stage") else ""
    unfinished = "" if source.get("finished", True) else ", training not finished"
    trained_on = source.get("trained_on_data_sha256", source["data_sha256"])
    other = "; not the data that the model was trained on" if source["data_sha256"] != trained_on else ""
    judge = source.get("judge") or {}
    steps = source.get("evaluation", {}).get("refinement_steps", 0)
    hash_only = "SHA-256"
    found = [
        Fact("run", f"{source.get('run', '')}{step}{unfinished}"),
        Fact("system", source.get("system", "")),
        Fact("samples", source.get("samples", ""), source.get("samples_sha256", "")),
        Fact("checkpoint", hash_only, source.get("checkpoint_sha256", "")),
        Fact("static codes", f"refined on their clips by {steps} gradient steps" if steps else ""),
        Fact("data", f"{source['data']}{other}", source["data_sha256"]),
        Fact("pairs", hash_only, source.get("pairs_sha256", "")),
        Fact(
            "judge",
            f"{judge['steps']:,} steps on real training clips" if judge.get("steps") else "",
            judge.get("key", ""),
        ),
        Fact("seed", str(source["seed"])),
        Fact("software", ", ".join(f"{name} {version}" for name, version in source["versions"].items())),
        Fact("threads", str(source.get("threads", ""))),
    ]
    return [fact for fact in found if fact.sha256 or (fact.text and fact.text != hash_only)]
