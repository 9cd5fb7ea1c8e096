"""Dashboards as code, and the objects of the Prometheus operator; nothing here is part of an image."""
