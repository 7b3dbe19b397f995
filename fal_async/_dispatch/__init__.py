"""Executes operations: limits, authorization, failover, retries."""
