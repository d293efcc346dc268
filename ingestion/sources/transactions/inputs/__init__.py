"""Where lines of transactions come from. A stream or a database would be a module beside files."""
