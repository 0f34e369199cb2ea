"""How well a model separates who is seen from what they do, measured on held-out clips."""
