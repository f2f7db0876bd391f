"""Metrics for Prometheus, with their Grafana dashboard and alert rules."""
