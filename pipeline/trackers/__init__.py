"""Experiment trackers of a run: one interface, an adapter for each, and a thread that feeds them."""
