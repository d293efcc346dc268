"""How typed rows get into the raw tables: under one load, by COPY, in one transaction."""
