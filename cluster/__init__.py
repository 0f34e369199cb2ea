"""Where bytes and processes live: storage, Ray start-up, command lines, checks."""
