"""Command lines: settings, options, one-line errors, progress."""
