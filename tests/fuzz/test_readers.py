"""Readers of foreign bytes answer any file by reading it or by a clear error of one line.

The fuzzers run for hours (`tests/fuzz/run.py`). Here are the inputs that they found, and a few hundred mutations of
valid files per reader.
"""

from random import Random

import pytest

from tests.fuzz import targets
from tests.fuzz.known_inputs import INPUTS

MUTATIONS = 150
"""Mutations per reader; each takes a few milliseconds."""
FEWER = {"columns": 100, "table": 100, "recipe": 50, "plan": 100, "shard": 100, "config": 60, "weights": 60}
"""Mutations of readers that take longer."""


@pytest.mark.parametrize("name", targets.TARGETS)
def test_valid_files_are_read_without_error(name: str) -> None:
    for data in targets.seed_files(name):
        targets.check(name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.TARGETS)
def test_mutations_of_valid_files_are_read_or_refused_clearly(name: str) -> None:
    random, files = Random(20), targets.seed_files(name)
    for _ in range(FEWER.get(name, MUTATIONS)):
        data = random.choice(files)
        for _ in range(random.choice((1, 1, 2))):
            data = targets.TARGETS[name].mutate(data, random)
        if len(data) < 65_536:
            targets.check(name, data)


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for name, known in INPUTS.items() for fault in known])
def test_inputs_that_readers_once_failed_on_are_read_or_refused_clearly(name: str, fault: str) -> None:
    targets.check(name, INPUTS[name][fault])
