"""Trained models by path, URL or name, and their exchange with the Hugging Face Hub."""
