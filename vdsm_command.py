"""The console script `vdsm`. Its name is of no other module, as those of the packages may be in PYTHONPATH."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pipeline.cli import main

__all__ = ["main"]
