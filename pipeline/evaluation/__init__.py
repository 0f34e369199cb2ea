"""Evaluation of a run or of another system's samples: inputs, judge cache, metrics.json."""
