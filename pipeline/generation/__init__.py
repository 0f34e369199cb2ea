"""The library of `vdsm generate`: donors, grids of generated clips, and media files."""
