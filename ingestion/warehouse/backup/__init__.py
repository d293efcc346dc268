"""Backups: dumps of one database, base backups with WAL of the embedded server, upgrades of it.

A place of backups is a folder or a prefix in a store::

    dump-20240131T120000Z-1f2e3d/        one database: database.dump is what pg_restore reads
        database.dump  manifest.json
    archive-20240131T120000Z-1f2e3d/     the embedded server from one moment on
        wal/000000010000000000000003 ...
        base-20240131T120001Z-4a5b6c/    base.tar.gz, pg_wal.tar.gz, backup_manifest, manifest.json

A manifest is written last and has the sum of every file and of itself, so a backup that was cut
short or damaged is known as such, and is never restored.
"""
