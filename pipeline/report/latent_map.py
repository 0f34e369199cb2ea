"""Maps of the codes of the test clips: their two main directions as SVG, coloured by any factor of the clips.

Every point carries its value of every factor; the page's script changes the colours. Values differ by shape as well as
by colour, so that the map can be read without telling colours apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.floating]

SIZE = 340
"""Units of a side of the drawing."""
MARGIN = 12
MOST_POINTS = 900
SHADES = 7
"""Steps into which a continuous factor is divided."""
MOST_NAMED = 12
"""Values that have a colour and a shape of their own; the rest are `other`."""


@dataclass(frozen=True)
class Colouring:
    """A factor by which points are coloured."""

    name: str
    values: NDArray[np.int64]
    """[N] positions in `legend`."""
    legend: list[str]
    continuous: bool


@dataclass(frozen=True)
class LatentMap:
    """One code of all clips, in two dimensions."""

    title: str
    points: list[tuple[float, float, list[int]]]
    """(across, down, value of each colouring)."""
    explained: tuple[float, float]
    """Share of the variance along each axis."""
    clips: int
    """Clips that the axes were found from; of many, some are drawn."""


def principal_plane(codes: Codes) -> tuple[Floats, tuple[float, float]]:
    """Codes [N, K] along their two directions of most variance, [N, 2], and the share of the variance of each.

    The sign of a direction is that of its largest weight, so that the same codes give the same map.
    """
    centred = np.asarray(codes, dtype=np.float64) - np.asarray(codes, dtype=np.float64).mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(centred), 2))
    shares = [0.0, 0.0]
    total = float((singular**2).sum())
    for number in range(min(2, len(singular))):
        direction = directions[number] * np.sign(directions[number][np.abs(directions[number]).argmax()])
        found[:, number] = centred @ direction
        shares[number] = float(singular[number] ** 2) / total if total > 0 else 0.0
    return found, (shares[0], shares[1])


def categorical(name: str, values: NDArray[np.int64], names: Sequence[str]) -> Colouring:
    """A label; the rarest values beyond what can be told apart become `other`. Values below 0 are unknown."""
    present = [int(value) for value in np.unique(values) if 0 <= value < len(names)]
    counts = {value: int((values == value).sum()) for value in present}
    named = sorted(sorted(present, key=lambda value: -counts[value])[:MOST_NAMED])
    legend = [names[value] for value in named]
    place = {value: number for number, value in enumerate(named)}
    if len(named) < len(present) or (values < 0).any():
        legend.append("other" if len(named) < len(present) else "unknown")
    found = np.array([place.get(int(value), len(named)) for value in values], dtype=np.int64)
    return Colouring(name, found, legend, continuous=False)


def continuous(name: str, values: Floats) -> Colouring | None:
    """A continuous factor in equal steps between its ends; none where it does not vary."""
    known = np.isfinite(values)
    if not known.any():
        return None
    low, high = float(values[known].min()), float(values[known].max())
    if not high > low:
        return None
    edges = np.linspace(low, high, SHADES + 1)
    found = np.clip(np.digitize(np.where(known, values, low), edges) - 1, 0, SHADES - 1).astype(np.int64)
    legend = [f"{edges[step]:.3g} to {edges[step + 1]:.3g}" for step in range(SHADES)]
    if not known.all():
        found[~known] = SHADES
        legend.append("unknown")
    return Colouring(name, found, legend, continuous=True)


def colourings(
    labels: Mapping[str, NDArray[np.int64]],
    vocabulary: Mapping[str, Sequence[str]],
    factors: Mapping[str, Floats],
    identities: Sequence[str],
) -> list[Colouring]:
    """Everything the clips can be coloured by: labels, continuous factors, and identities where these are few."""
    found = [categorical(name, np.asarray(labels[name]), names) for name, names in vocabulary.items()]
    for name, values in factors.items():
        colouring = continuous(name, np.asarray(values, dtype=np.float64))
        if colouring is not None:
            found.append(colouring)
    names, place = np.unique(np.asarray(identities), return_inverse=True)
    if 2 <= len(names) <= MOST_NAMED:
        found.append(categorical("identity", place.astype(np.int64), [str(name) for name in names]))
    return [colouring for colouring in found if len(colouring.legend) > 1]


def latent_map(title: str, codes: Codes, coloured_by: Sequence[Colouring]) -> LatentMap:
    """The map of codes [N, K] with N clips."""
    places, explained = principal_plane(codes)
    shown = np.unique(np.linspace(0, len(places) - 1, min(len(places), MOST_POINTS)).round().astype(np.int64))
    # Both axes have the same scale, so that distances mean the same along both.
    middle = (places.max(0) + places.min(0)) / 2
    reach = float((places.max(0) - places.min(0)).max()) / 2 or 1.0
    scale = (SIZE / 2 - MARGIN) / reach
    points = []
    for index in shown:
        across, down = (places[index] - middle) * scale * (1, -1) + SIZE / 2
        points.append((round(float(across), 1), round(float(down), 1), [int(c.values[index]) for c in coloured_by]))
    return LatentMap(title, points, explained, len(places))


def marks() -> str:
    """The shapes of the points as SVG symbols `mark-0` to `mark-12`: the first eight full, the others hollow."""
    shapes = [
        '<circle r="{r}"/>', '<rect x="-{a}" y="-{a}" width="{b}" height="{b}"/>', '<path d="M0-4.4 4 3.2H-4z"/>',
        '<path d="M0-4.6 3.8 0 0 4.6-3.8 0z"/>', '<path d="M0 4.4 4-3.2H-4z"/>',
        '<path d="M-1.2-4H1.2V-1.2H4V1.2H1.2V4H-1.2V1.2H-4V-1.2H-1.2z"/>',
        '<path d="M0-4.4 4.2-1.3 2.6 3.6H-2.6L-4.2-1.3z"/>',
        '<path d="M-3.8-2.2-2.2-3.8 0-1.6 2.2-3.8 3.8-2.2 1.6 0 3.8 2.2 2.2 3.8 0 1.6-2.2 3.8-3.8 2.2-1.6 0z"/>',
    ]  # fmt: skip
    full = [shape.format(r=3.2, a=2.9, b=5.8) if "{" in shape else shape for shape in shapes]
    symbols = [f'<g id="mark-{number}">{shape}</g>' for number, shape in enumerate(full)]
    symbols += [
        f'<g id="mark-{number}" fill="none" style="stroke-width:1.5">{shape}</g>'
        for number, shape in enumerate(full[: MOST_NAMED + 1 - len(full)], len(full))
    ]
    return f'<svg class="marks" aria-hidden="true"><defs>{"".join(symbols)}</defs></svg>'
