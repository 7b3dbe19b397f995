"""Sockets, TLS, tasks, threads, event loops; knows neither HTTP nor the platform."""
