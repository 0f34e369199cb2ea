"""metrics.json of an evaluation that may come from anywhere: the fields that a comparison uses are checked first."""

import json
from typing import Any, NotRequired, TypedDict

from pipeline.report.metric_format import Metrics
from preprocessing.dataset import schema
from preprocessing.dataset.constraints import Count, Form, Text

Number = float | int
Name = Form(r"[^.]+(\.[^.]*)+|is|h_y|h_y_given_x", "the name of a metric")


class _Metric(TypedDict):
    value: Number
    n: Count
    chance: Number | None
    low: Number | None
    high: Number | None


class _Factors(TypedDict):
    action: NotRequired[Text]
    static: list[Text]


class _Model(TypedDict):
    frame_size: NotRequired[int]


class _Recipe(TypedDict):
    model: NotRequired[_Model]


class _Judge(TypedDict):
    key: NotRequired[Text]


class _Provenance(TypedDict):
    data: Text
    data_sha256: Text
    pairs_sha256: Text
    test_clips: Count
    test_identities: Count
    run: NotRequired[Text]
    samples: NotRequired[Text]
    system: NotRequired[Text]
    judge: NotRequired[_Judge | None]
    recipe: NotRequired[_Recipe | None]
    evaluation: NotRequired[dict[str, Any]]


class _Report(TypedDict):
    schema_version: int
    swap_by: Text
    factors: _Factors
    vocabulary: dict[Text, list[Text]]
    figures: dict[Text, _Metric]
    controls: dict[Text, dict[Text, _Metric]]
    warnings: list[Text]
    provenance: _Provenance


def read_metrics(url: str) -> Metrics:
    """Return the content of a metrics.json.

    Raises:
        ValueError: a field is missing or not as `vdsm evaluate` writes it; the message is one line.
    """
    content = schema.load(schema.read(url))
    schema.check(content, _Report)
    json.dumps(content, ensure_ascii=False, allow_nan=False).encode()  # no infinity, no half of a surrogate pair
    for name in content["figures"]:
        if not Name.accepts(name):
            raise schema.SchemaError(f"has a metric {name!r:.60}")
    metrics: Metrics = content
    return metrics
