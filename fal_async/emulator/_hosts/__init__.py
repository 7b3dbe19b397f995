"""The hosts of the platform, one module each, and how requests find them."""
