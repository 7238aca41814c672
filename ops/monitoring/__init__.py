"""Dashboards for Grafana and rules for Prometheus: generated, tried against a real Prometheus, started."""
