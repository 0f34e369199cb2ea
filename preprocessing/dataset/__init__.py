"""The dataset format: everything that reads or writes it."""
