"""Values that all layers use: argument checks, secrets, statuses, annotations."""
