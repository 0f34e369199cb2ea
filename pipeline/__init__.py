"""The jobs that users submit, and the training that they run."""
