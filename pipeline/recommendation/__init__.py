"""A recipe for a dataset: what the data is like, what the machine has, and which settings follow from both."""
