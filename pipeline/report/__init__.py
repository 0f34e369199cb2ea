"""Reports of evaluations, sweeps and comparisons: self-contained HTML pages."""
