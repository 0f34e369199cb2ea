"""Servers for development and tests on this machine: S3 and a small Ray cluster."""
