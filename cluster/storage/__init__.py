"""Bytes in local folders and in S3, behind one set of functions."""
