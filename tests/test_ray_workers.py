"""The server of forked workers of the tests."""

import subprocess
import sys

import pytest

FORKS = """
import importlib, os, threading
from tests.ray_workers import IMPORTED, draw_ids
for name in IMPORTED:
    importlib.import_module(name)
from ray._raylet import ObjectRef
def draw(ids):
    ids.append(ObjectRef.from_random().hex())
for _ in range(4):
    draw_ids()
    if os.fork() == 0:
        ids = []
        draw(ids)
        thread = threading.Thread(target=draw, args=(ids,))
        thread.start()
        thread.join()
        os.write(1, (" ".join(ids) + "\\n").encode())
        os._exit(0)
    os.wait()
"""


@pytest.mark.slow
def test_workers_forked_from_one_server_draw_different_ids() -> None:
    printed = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True).stdout
    ids = printed.split()
    assert len(ids) == 8
    assert len(set(ids)) == 8
