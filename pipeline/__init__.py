"""The jobs people submit, and the training they run."""
