"""How a file is written: its lines as typed Arrow rows, and the ones that cannot be typed."""
