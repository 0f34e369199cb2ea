"""Health checks of `vdsm doctor`: collect facts from every node, judge them, name the remedy."""
