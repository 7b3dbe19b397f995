"""A stub of the platform that is fast enough not to be what is measured."""
