"""The hosts of the platform, one module each."""
