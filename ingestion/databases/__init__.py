"""How tables and collections of others are read: exactly, or with a word why not."""
