"""Bytes in and out: uploads, downloads, files in arguments and outputs."""
