"""Evaluation of a model on held-out clips: how well it separates identity from motion."""
