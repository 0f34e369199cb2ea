"""The library of `vdsm export`: a run as an exported model, its card, its programs."""
