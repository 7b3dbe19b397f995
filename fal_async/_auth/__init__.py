"""Sources of the Authorization header."""
