"""Superset over the marts: the dashboards as YAML, and what carries them in and out."""
