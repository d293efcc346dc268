"""Where lines of transactions come from, and which of them are new.

A stream or a database would be a module beside files.
"""
