"""The public async API."""
