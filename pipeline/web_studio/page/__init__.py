"""Files of the page of the studio."""
