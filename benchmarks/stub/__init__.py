"""A stub of the platform that is much faster than the clients under test."""
