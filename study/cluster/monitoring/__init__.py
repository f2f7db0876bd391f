"""What a running study tells Prometheus, Grafana and their alerts."""
