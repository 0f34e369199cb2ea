"""Maps of the latent codes of the test clips: two principal components as SVG, coloured by any factor of the clips.

Every point carries its value of every factor; the page's script changes the colours. Values differ in shape as well as
in colour, so that the map is readable without colour vision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.spread import evenly_spread
from vdsm.evaluation.measurement import Latents

Floats = NDArray[np.float64]
Codes = NDArray[np.floating]

SIZE = 340
"""Side of the drawing in SVG units."""
MARGIN = 12
MAX_POINTS = 900
SHADES = 7
"""Intervals into which a continuous factor is divided."""
MAX_NAMED = 12
"""Values with a colour and a shape of their own; the rest become `other`."""


@dataclass(frozen=True)
class Colouring:
    """A factor by which points are coloured."""

    name: str
    values: NDArray[np.int64]
    """Index into `legend` for each clip: [N]."""
    legend: list[str]
    continuous: bool


@dataclass(frozen=True)
class LatentMap:
    """One code of all clips, projected to two dimensions."""

    title: str
    points: list[tuple[float, float, list[int]]]
    """(x, y, value of each colouring)."""
    explained: tuple[float, float]
    """Share of the variance explained by each axis."""
    clips: int
    """Number of clips that the axes were computed from; at most MAX_POINTS of them are drawn."""


def principal_plane(codes: Codes) -> tuple[Floats, tuple[float, float]]:
    """Project codes [N, K] onto their first two principal components.

    The sign of a component is that of its largest weight, so that the same codes give the same map.

    Returns:
        The coordinates [N, 2] and the share of the variance explained by each component.
    """
    centred = np.asarray(codes, dtype=np.float64) - np.asarray(codes, dtype=np.float64).mean(0)
    _, singular, components = np.linalg.svd(centred, full_matrices=False)
    projected = np.zeros((len(centred), 2))
    shares = [0.0, 0.0]
    total = float((singular**2).sum())
    for number in range(min(2, len(singular))):
        component = components[number] * np.sign(components[number][np.abs(components[number]).argmax()])
        projected[:, number] = centred @ component
        shares[number] = float(singular[number] ** 2) / total if total > 0 else 0.0
    return projected, (shares[0], shares[1])


def categorical(name: str, values: NDArray[np.int64], names: Sequence[str]) -> Colouring:
    """Colour by a label; beyond MAX_NAMED values, the rarest become `other`. Values below 0 are unknown."""
    present = [int(value) for value in np.unique(values) if 0 <= value < len(names)]
    counts = {value: int((values == value).sum()) for value in present}
    named = sorted(sorted(present, key=lambda value: -counts[value])[:MAX_NAMED])
    legend = [names[value] for value in named]
    index_of = {value: number for number, value in enumerate(named)}
    if len(named) < len(present) or (values < 0).any():
        legend.append("other" if len(named) < len(present) else "unknown")
    indices = np.array([index_of.get(int(value), len(named)) for value in values], dtype=np.int64)
    return Colouring(name, indices, legend, continuous=False)


def continuous(name: str, values: Floats) -> Colouring | None:
    """Colour by a continuous factor, in SHADES equal intervals; return None if it does not vary."""
    known = np.isfinite(values)
    if not known.any():
        return None
    low, high = float(values[known].min()), float(values[known].max())
    if not high > low:
        return None
    edges = np.linspace(low, high, SHADES + 1)
    intervals = np.clip(np.digitize(np.where(known, values, low), edges) - 1, 0, SHADES - 1).astype(np.int64)
    legend = [f"{edges[step]:.3g} to {edges[step + 1]:.3g}" for step in range(SHADES)]
    if not known.all():
        intervals[~known] = SHADES
        legend.append("unknown")
    return Colouring(name, intervals, legend, continuous=True)


def colourings(
    labels: Mapping[str, NDArray[np.int64]],
    vocabulary: Mapping[str, Sequence[str]],
    factors: Mapping[str, Floats],
    identities: Sequence[str],
) -> list[Colouring]:
    """Return everything the clips can be coloured by: labels, continuous factors, and identities if there are few."""
    found = [categorical(name, np.asarray(labels[name]), names) for name, names in vocabulary.items()]
    for name, values in factors.items():
        colouring = continuous(name, np.asarray(values, dtype=np.float64))
        if colouring is not None:
            found.append(colouring)
    names, indices = np.unique(np.asarray(identities, dtype=object), return_inverse=True)
    if 2 <= len(names) <= MAX_NAMED:
        found.append(categorical("identity", indices.astype(np.int64), [str(name) for name in names]))
    return [colouring for colouring in found if len(colouring.legend) > 1]


def latent_map(title: str, codes: Codes, colourings: Sequence[Colouring]) -> LatentMap:
    """Return the map of the codes [N, K] of N clips."""
    positions, explained = principal_plane(codes)
    shown = evenly_spread(len(positions), MAX_POINTS)
    # Both axes have the same scale, so that distances are comparable in every direction.
    middle = (positions.max(0) + positions.min(0)) / 2
    reach = float((positions.max(0) - positions.min(0)).max()) / 2 or 1.0
    scale = (SIZE / 2 - MARGIN) / reach
    points = []
    for index in shown:
        x, y = (positions[index] - middle) * scale * (1, -1) + SIZE / 2
        points.append((round(float(x), 1), round(float(y), 1), [int(c.values[index]) for c in colourings]))
    return LatentMap(title, points, explained, len(positions))


def code_maps(latents: Latents, sequence_stage: bool) -> tuple[list[Colouring], list[LatentMap]]:
    """Return the colourings of the clips and the maps of their codes; a pose is that of the middle frame."""
    middle = latents.codes.pose.shape[1] // 2
    factors = dict(latents.factors) | {
        f"{name} (middle frame)": values[:, min(middle, values.shape[1] - 1)] for name, values in latents.tracks.items()
    }
    found = colourings(latents.labels, latents.vocabulary, factors, latents.identities)
    maps = [latent_map("Static code", latents.codes.static.numpy(), found)]
    if sequence_stage:
        maps.append(latent_map("Dynamics code", latents.codes.dynamics.numpy(), found))
    maps.append(latent_map("Pose of the middle frame", latents.codes.pose[:, middle].numpy(), found))
    return found, maps


def marks() -> str:
    """Return the point shapes as SVG groups `mark-0` to `mark-12`: the first eight filled, the others hollow."""
    shapes = [
        '<circle r="{r}"/>', '<rect x="-{a}" y="-{a}" width="{b}" height="{b}"/>', '<path d="M0-4.4 4 3.2H-4z"/>',
        '<path d="M0-4.6 3.8 0 0 4.6-3.8 0z"/>', '<path d="M0 4.4 4-3.2H-4z"/>',
        '<path d="M-1.2-4H1.2V-1.2H4V1.2H1.2V4H-1.2V1.2H-4V-1.2H-1.2z"/>',
        '<path d="M0-4.4 4.2-1.3 2.6 3.6H-2.6L-4.2-1.3z"/>',
        '<path d="M-3.8-2.2-2.2-3.8 0-1.6 2.2-3.8 3.8-2.2 1.6 0 3.8 2.2 2.2 3.8 0 1.6-2.2 3.8-3.8 2.2-1.6 0z"/>',
    ]  # fmt: skip
    filled = [shape.format(r=3.2, a=2.9, b=5.8) if "{" in shape else shape for shape in shapes]
    symbols = [f'<g id="mark-{number}">{shape}</g>' for number, shape in enumerate(filled)]
    symbols += [
        f'<g id="mark-{number}" fill="none" style="stroke-width:1.5">{shape}</g>'
        for number, shape in enumerate(filled[: MAX_NAMED + 1 - len(filled)], len(filled))
    ]
    return f'<svg class="marks" aria-hidden="true"><defs>{"".join(symbols)}</defs></svg>'
