"""What each run did, kept in the schema ``ops`` of the warehouse.

dbt's hooks write what dbt did (macros/operations/evidence.sql). This package writes what
``marquee`` did, and makes metrics of both. Evidence never stops a command: what cannot be written
is left out.
"""
