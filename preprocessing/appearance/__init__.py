"""What clips look like, counted without order in space or time, and which clips therefore look alike."""
