"""A proxy for web pages that use the official JavaScript client: the key stays on the server."""
