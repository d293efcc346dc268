"""Change data capture: what Debezium makes of a table in PostgreSQL lands by the envelope's rules.

``make test-kafka`` starts Apache Kafka, Kafka Connect and Debezium, which come by Maven.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingestion.sources.transactions.stream import ingest_topic
from ingestion.tests.brokers import ApacheKafka, copy_jars
from ingestion.tests.conftest import query_of, reachable_folder, unused_port
from ingestion.tests.test_apache_kafka import kafka, pytestmark  # noqa: F401
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.target import Target

JARS = {
    "org.apache.kafka:connect-runtime": "4.1.0",
    "org.apache.kafka:connect-json": "4.1.0",
    "io.debezium:debezium-connector-postgres": "3.2.0.Final",
    "org.slf4j:slf4j-simple": "1.7.36",
}
WORKER = """\
bootstrap.servers={address}
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
value.converter.schemas.enable={with_schema}
key.converter.schemas.enable=false
offset.storage.file.filename={folder}/offsets
offset.flush.interval.ms=500
listeners=http://127.0.0.1:{port}
"""
CONNECTOR = """\
name=payments
connector.class=io.debezium.connector.postgresql.PostgresConnector
database.hostname={target.host}
database.port={target.port}
database.user={target.user}
database.password={target.password}
database.dbname={target.dbname}
plugin.name=pgoutput
topic.prefix=cdc
table.include.list=public.payments
decimal.handling.mode=string
time.precision.mode=isostring
"""


@pytest.fixture(scope="module")
def source() -> Iterator[Target]:
    """A PostgreSQL of its own, whose changes can be followed."""
    folder = reachable_folder()
    server = Server(folder / "state")
    server.start(unused_port())
    with closing(server.target.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("alter system set wal_level = logical")
        cursor.execute("alter system set max_wal_senders = 4")
        cursor.execute("alter system set max_replication_slots = 4")
        cursor.execute("show hba_file")
        with Path(cursor.fetchone()[0]).open("a") as hba:
            hba.write("host replication all 127.0.0.1/32 scram-sha-256\n")
    server.stop()
    server.start(server.target.port)
    try:
        yield server.target
    finally:
        server.delete()


def execute(target: Target, *statements: str) -> None:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in statements:
            cursor.execute(statement)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, log.read_text()[-3_000:]
        assert time.monotonic() < deadline, log.read_text()[-3_000:]
        time.sleep(1)


@pytest.mark.parametrize("with_schema", ["false", "true"])
def test_snapshot_insert_update_and_delete(  # noqa: PLR0917
    kafka: ApacheKafka,  # noqa: F811
    source: Target,
    database: Target,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    with_schema: str,
) -> None:
    """Snapshot and inserts land, an update is another version, a delete is a reject."""
    jars = tmp_path_factory.getbasetemp() / "connect-jars"
    copy_jars(JARS, jars)
    prefix = f"cdc{with_schema}"
    worker, connector, log = (tmp_path / name for name in ("worker", "connector", "log"))
    worker.write_text(
        WORKER.format(
            address=kafka.address, with_schema=with_schema, folder=tmp_path, port=unused_port()
        )
    )
    text = CONNECTOR.format(target=source).replace("topic.prefix=cdc", f"topic.prefix={prefix}")
    connector.write_text(f"{text}slot.name={prefix}\npublication.name={prefix}\n")
    execute(
        source,
        "drop table if exists payments",
        "create table payments (transaction_id text primary key, event_ts timestamptz,"
        " user_id bigint, amount numeric(12, 2), status text)",
        "alter table payments replica identity full",
        "insert into payments values ('s1', '2024-05-01 10:00+00', 1, 10.10, 'PENDING')",
    )
    query = query_of(database)
    url = kafka.url(f"{prefix}.public.payments")

    def landed() -> list[tuple]:
        from ingestion.errors import UserError

        try:
            ingest_topic(url, database)
        except UserError as error:
            if "There is no topic" not in error.message:
                raise
            return []
        return query(
            "select transaction_id, amount::text, status, user_id from transactions"
            " order by _file_line"
        )

    with log.open("w") as out:
        process = subprocess.Popen(
            [
                *("java", "-Xmx512m", "-cp", f"{jars}/*"),
                "org.apache.kafka.connect.cli.ConnectStandalone",
                *(str(worker), str(connector)),
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LOG_DIR": str(tmp_path)},
        )
    try:
        wait_for(lambda: len(landed()) == 1, process, log)
        execute(
            source,
            "insert into payments values ('i1', '2024-05-02 10:00+00', 2, 1234.50, 'APPROVED')",
            "update payments set status = 'APPROVED' where transaction_id = 's1'",
            "delete from payments where transaction_id = 'i1'",
        )
        wait_for(lambda: len(landed()) == 3, process, log)
        wait_for(lambda: landed() and len(query("select 1 from rejects")) == 2, process, log)
    finally:
        process.kill()
        process.wait()
    assert landed() == [
        ("s1", "10.1000", "PENDING", "1"),
        ("i1", "1234.5000", "APPROVED", "2"),
        ("s1", "10.1000", "APPROVED", "1"),
    ]
    assert query("select reason_code, count(*) from rejects group by 1") == [("deleted", 2)]
