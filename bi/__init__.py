"""What shows the marts to people: Superset's dashboards, and the code that keeps them in files."""
