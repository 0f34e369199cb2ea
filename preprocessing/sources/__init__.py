"""Sources of clips: the user's own files, the Sprites and MNIST files, and built-in generators."""
