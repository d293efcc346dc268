"""Marquee's ingestion: lands raw films, brands and card transactions in PostgreSQL with dlt."""

__version__ = "0.1.0"
INTERRUPTED = "Interrupted. What is finished stays; run it again: it goes on from there."
COMMAND = "command"  # name of the thread that does what a command is for
