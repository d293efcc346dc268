"""``python -m ingestion`` is the ``marquee`` command."""

from ingestion.cli import main

main()
