"""The warehouse: which PostgreSQL it is, how to log in there, and the embedded one."""
