"""A folder, or a prefix of a store, is watched: what is new lands once, then others are told."""
