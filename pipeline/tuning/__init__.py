"""The search for settings: what is searched, what is kept of it, how a trial is run and scored."""
