"""Fixtures of the tests with the official JavaScript client."""

from tests.support.javascript import javascript

__all__ = ["javascript"]
