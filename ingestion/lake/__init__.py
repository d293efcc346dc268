"""A lake: what lands as Iceberg tables on a disk or in a store, with a catalogue in PostgreSQL.

Below its location are ``raw/`` (files as they came), ``validated/`` (typed rows, by day of their
event), ``rejects/`` and ``ledger/``. The contract, the rejects and the ledger are those of
``sources.transactions``; this room only writes what they decide. The catalogue and the ledger that
is asked are tables of one schema of the warehouse, so one transaction there makes a load count.
"""
