"""Transactions from a Kafka topic, each message once.

Rows, rejects and the offsets that they came from are one transaction of the warehouse: the ledger
``files`` has a row for each batch and partition, whose path is the partition and whose lines are
offsets. Reading goes on from there, whatever the broker remembers. A process holds a partition by
an advisory lock of the very connection that writes, so whoever lost the lock cannot commit, either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from ingestion import kafka_settings
from ingestion.errors import PassingError, UserError, error_line
from ingestion.pipeline import LoadReport, one_at_a_time, refusals, url_of_loads
from ingestion.sources.transactions import settings
from ingestion.sources.transactions.contract import quoted
from ingestion.sources.transactions.inputs.kafka import Gone, Messages, TopicReader, look_up
from ingestion.sources.transactions.landing import load
from ingestion.sources.transactions.stream_progress import Progress
from ingestion.warehouse import advice
from ingestion.warehouse.fitness import refuse_unfit

if TYPE_CHECKING:
    from ingestion.sources.transactions.landing.copy import Copy
    from ingestion.sources.transactions.mapping.rules import Rules
    from ingestion.sources.transactions.mapping.spec import Mapping
    from ingestion.warehouse.target import Target

# Who lands a topic holds its lock shared, so that others see how many they are; a partition is of
# whoever holds its lock.
JOIN = "select pg_advisory_lock_shared({MEMBERS}, hashtext({place}))"
MEMBERS = """
    select count(*) from pg_locks
    where locktype = 'advisory' and granted and mode = 'ShareLock' and objsubid = 2
    and database = (select oid from pg_database where datname = current_database())
    and classid = {MEMBERS} and objid = hashtext({place})::bigint & 4294967295
"""
LOCK = "select pg_try_advisory_lock(hashtextextended({place}, 0))"
UNLOCK = "select pg_advisory_unlock(hashtextextended({place}, 0))"
CLASS = 1_835_102_835  # of advisory locks: "mars"
SESSION = (
    # a transaction is open between two batches, and holds nothing
    "select set_config(name, '0', false) from pg_settings where name in"
    " ('idle_in_transaction_session_timeout', 'transaction_timeout')",
    # a machine that is gone gives its partitions back within a minute
    "set tcp_keepalives_idle = 30",
    "set tcp_keepalives_interval = 10",
    "set tcp_keepalives_count = 3",
)
POSITION = """
    select _file_checksum, max(last_line), max(_dlt_load_id), max(mapping),
        max(mapping_document)
    from DATASET.files where path = {place} and replay_of is null
    group by _file_checksum order by max(_dlt_load_id) desc
"""
# Of the partitions of a batch, those that another load has brought further than was known.
FURTHER = "select from DATASET.files where _dlt_load_id <> 'LOAD_ID' and ({any}) limit 1"
LANDED_BEFORE = "select from DATASET.files where starts_with(path, {place} || '/') limit 1"
RECONNECT_SECONDS = (1, 2, 5, 10, 30)
SHARE_SECONDS = 1.0  # until it is seen that processes or partitions came or went
STALL_SECONDS = 30.0  # without a message or an end, after which a topic is given up


class Elsewhere(UserError):
    """What was read is in the warehouse already; the ledger says where to go on."""


def ingest_topic(
    url: str,
    target: Target,
    *,
    follow: bool = False,
    mapping: Mapping | None = None,
    offset_reset: str | None = None,
    say: Callable[[str], None] = print,
    stop: Callable[[], bool] = lambda: False,
    after_batch: Callable[[int], None] = lambda _: None,
) -> LoadReport:
    """Land the messages of a topic.

    Args:
        url: ``kafka://host[:port]/topic``.
        target: the warehouse.
        follow: go on when all is read, share partitions with other processes, and connect again
            where the warehouse went away; otherwise the call ends with what is there.
        mapping: how messages are read; None: as those of this topic that landed before, or by the
            names in the first ones.
        offset_reset: ``earliest`` or ``latest``: where to go on if the offset that the ledger goes
            on from is not there, or the topic was made anew; None: that is an error.
        say: gets a line about progress, every ten seconds or so.
        stop: ends the following when it says so.
        after_batch: is told, while following, how many rows have landed in all.

    Returns:
        Rows landed and rejected, and notes.

    Raises:
        UserError: no such topic; its messages do not fit; offsets are not there; another process
            lands it; the warehouse does not take it.
    """
    from ingestion import raw_tables

    address = kafka_settings.parse(url)
    report = LoadReport("transactions", rows={"transactions": 0, "files": 0})
    began = time.monotonic()
    raw_tables.bring_forward(target, "transactions")
    with closing(target.connect()) as connection:
        refuse_unfit(connection, target)
    if not load.tables_are_there(target):
        with one_at_a_time("transactions", target), refusals("transactions"):
            load.make_tables(target)
    landing = _Stream(address, target, report, mapping, offset_reset, say=say)
    if follow:
        landing.follow(stop, after_batch)
    else:
        with refusals("transactions"):
            landing.land_what_is_there()
    report.seconds = time.monotonic() - began
    return report


class _Stream:
    """Lands a topic; ``report`` grows."""

    def __init__(
        self,
        address: kafka_settings.Address,
        target: Target,
        report: LoadReport,
        mapping: Mapping | None,
        offset_reset: str | None,
        *,
        say: Callable[[str], None],
    ) -> None:
        from ingestion.sources.transactions.formats.reader import Reader

        self._settings = kafka_settings.settings()
        self._batch_rows, self._batch_seconds = settings.batches()
        self._target, self._report, self._say = target, report, say
        self._address, self._offset_reset = address, offset_reset
        self._topic = look_up(address, self._settings)
        self._rules = _rules_of(mapping)
        self._has_landed = self._is_following = False
        self._known: dict[str, int] = {}  # by checksum, the last offset in the ledger
        self._begun: dict[int, int] = {}  # where partitions begin of which nothing has landed
        self._shapes = Reader()
        self._unknown: set[str] = set()
        self._reader: TopicReader
        self._copy: Copy

    def land_what_is_there(self) -> None:
        with self._session() as reader:
            held = {number: self._take(number) for number in self._topic.partitions}
            others = [number for number, position in held.items() if position is None]
            if others:
                raise PassingError(
                    f"{self._topic.name(others[0])} is being landed by another process.\n"
                    "Wait until it has ended, or stop it."
                )
            reader.hold({number: position or 0 for number, position in held.items()})
            arrived = time.monotonic()
            while not reader.is_at_end:
                messages = reader.read(self._batch_rows, self._batch_seconds)
                self._land(messages)
                arrived = time.monotonic() if messages else arrived
                if time.monotonic() - arrived > STALL_SECONDS:
                    why = reader.error or "some partitions give neither messages nor their end"
                    raise kafka_settings.Unreachable(
                        f"{self._address.topic} at {self._address.bootstrap} is not read to its"
                        f" end: {why}.\nWhat has landed stays. Run this again to go on."
                    )

    def follow(self, stop: Callable[[], bool], after_batch: Callable[[int], None]) -> None:
        """Go on until ``stop`` says so, over restarts of the warehouse and of brokers."""
        losses, self._is_following = 0, True
        while not stop():
            try:
                with refusals("transactions"), self._session() as reader:
                    self._ask(JOIN, quoted(self._topic.whole))
                    losses = self._go_on(reader, stop, after_batch, losses)
            except UserError as error:
                if not _is_passing(error):
                    raise
                wait = RECONNECT_SECONDS[min(losses, len(RECONNECT_SECONDS) - 1)]
                losses += 1
                self._say(f"{error_line(error)} Going on in {wait} s.")
                end = time.monotonic() + wait
                while time.monotonic() < end and not stop():
                    time.sleep(0.1)

    def _go_on(
        self,
        reader: TopicReader,
        stop: Callable[[], bool],
        after_batch: Callable[[int], None],
        losses: int,
    ) -> int:
        progress = Progress(self._say, self._report, reader)
        shared = -SHARE_SECONDS
        while not stop():
            if time.monotonic() - shared > SHARE_SECONDS:
                self._share(reader)
                shared = time.monotonic()
            messages = reader.read(self._batch_rows, self._batch_seconds)
            if messages:
                self._land(messages)
                losses = 0
            progress.tell(len(messages))
            after_batch(self._report.rows["transactions"])
        return losses

    def _share(self, reader: TopicReader) -> None:
        """Hold as many partitions as each process may: more where others have gone, or fewer."""
        reader.look_again()
        self._topic = reader.topic
        members = self._ask(MEMBERS, quoted(self._topic.whole))[0][0]
        quota = -(-len(self._topic.partitions) // max(members, 1))
        held = dict(reader.next)
        for number in sorted(held)[quota:]:
            del held[number]
            self._ask(UNLOCK, quoted(self._topic.place(number)))
        for number in self._topic.partitions:
            if number not in held and number not in reader.next and len(held) < quota:
                position = self._take(number)
                if position is not None:
                    held[number] = position
        if held.keys() != reader.next.keys():
            reader.hold(held)

    @contextmanager
    def _session(self) -> Iterator[TopicReader]:
        """A connection to the warehouse, which holds the locks, and one to the brokers."""
        from ingestion.sources.transactions.landing.copy import Copy

        url = url_of_loads("transactions:stream", self._target)
        with closing(Copy(url, settings.DATASET)) as copy:
            self._copy = copy
            for statement in SESSION:
                copy.run(statement)
            self._topic = look_up(self._address, self._settings)
            group = f"marquee-{self._target.dbname}"
            reader = TopicReader(self._topic, self._settings, group, self._offset_reset)
            with closing(reader):
                self._reader = reader
                yield reader

    # Which partitions are this process's, and where they go on

    def _take(self, partition: int) -> int | None:
        place = quoted(self._topic.place(partition))
        if not self._ask(LOCK, place)[0][0]:
            return None
        known = self._ask(POSITION, place)
        if not known:
            # a partition that is new, or was empty, of a topic that is known is read whole
            is_known = self._ask(LANDED_BEFORE, quoted(self._topic.whole))
            return self._begin(partition, None if is_known else self._offset_reset)
        self._has_landed = True
        self._known |= {checksum: int(last) for checksum, last, *_ in known}
        checksum, last, _, mapping, document = known[0]
        if self._rules is None and document:
            self._rules = _rules_of_ledger(document, mapping)
        if checksum == self._topic.checksum(partition):
            return int(last) + 1
        if self._offset_reset:
            return self._begin(partition, self._offset_reset)
        raise Gone(
            f"{self._topic.name(partition)}: the topic was deleted and made anew since it landed;"
            " its offsets count from 0 again.\n"
            "Land the new one with --offset-reset earliest (all of it) or latest (what comes from"
            " now on)."
        )

    def _begin(self, partition: int, reset: str | None) -> int:
        """Where a partition begins; once decided, it stays so over lost connections."""
        if partition not in self._begun:
            self._begun[partition] = self._reader.beginning(partition, reset)
        return self._begun[partition]

    def _note(self, text: str) -> None:
        """Say something now, or at the end if that comes by itself."""
        if self._is_following:
            self._say(text)
        else:
            self._report.notes.append(text)

    def _ask(self, query: str, place: str) -> list[tuple]:
        named = query.replace("{MEMBERS}", str(CLASS)).replace("{place}", place)
        return self._copy.ask(named.replace("DATASET", settings.DATASET))

    # A batch

    def _land(self, messages: Messages) -> None:
        """Land a batch, with its offsets, in one transaction.

        Raises:
            UserError: it is the first of a topic that does not fit, or the topic is another now.
        """
        from ingestion.sources.transactions.formats.messages import typed
        from ingestion.sources.transactions.landing.copy import Overtaken
        from ingestion.sources.transactions.landing.messages import Batch

        while self._reader.notes:
            self._note(self._reader.notes.pop())
        if not messages:
            return
        began = time.monotonic()
        if self._rules is None:
            self._rules = _rules_by_names(messages, str(self._topic.address.topic))
        rows, rejects, _ = typed(messages.values, self._shapes, self._rules)
        if not self._has_landed:
            self._refuse_what_does_not_fit(messages, rejects)
        self._reader.look_again()
        copy = self._copy
        copy.begin()
        batch = Batch(self._topic, messages, copy.load_id)
        for table, found in (("transactions", rows), ("rejects", rejects)):
            copy.write(table, batch.stamped(table, found))
        copy.write("files", batch.ledger(rows, rejects, self._rules, began))
        ends = {self._topic.checksum(number): end - 1 for number, end in batch.after.items()}
        found = (
            f"_file_checksum = {quoted(checksum)} and last_line > {self._known.get(checksum, -1)}"
            for checksum in ends
        )
        try:
            copy.commit(unless=FURTHER.replace("{any}", " or ".join(found)))
        except Overtaken as error:
            raise Elsewhere(
                f"Another process has landed messages of {self._topic.whole} that were read here;"
                " this batch has not landed again.\nRun this again: it goes on from the ledger."
            ) from error
        self._known |= {each: max(end, self._known.get(each, -1)) for each, end in ends.items()}
        self._has_landed = True
        self._reader.landed(batch.after)
        self._report.rows["transactions"] += rows.num_rows
        self._report.rows["files"] += len(batch.after)
        self._report.rejected += rejects.num_rows
        self._tell_of_unknown_fields(rows)

    def _refuse_what_does_not_fit(self, messages: Messages, rejects: Any) -> None:
        share = settings.max_reject_share()
        if rejects.num_rows > share * len(messages):
            example = rejects.slice(0, 1).to_pylist()[0]
            raise UserError(
                f"{self._address.topic}: {rejects.num_rows:,} of the first {len(messages):,}"
                f" messages cannot land (the first: {example['reason'][:100]}). Nothing has"
                " landed.\nGive a mapping (--mapping), or raise"
                " sources.transactions.max_reject_share in .dlt/config.toml."
            )

    def _tell_of_unknown_fields(self, rows: Any) -> None:
        from ingestion.sources.transactions.contract import DECODER

        for text in rows["extra_fields"].drop_null()[:100].to_pylist():
            for name, _ in DECODER.decode(text):
                if name not in self._unknown and len(self._unknown) < settings.NAMED:
                    self._unknown.add(name)
                    self._note(
                        f"Messages have the field {name[:50]!a} beyond the contract; it is kept in"
                        " extra_fields."
                    )


def _is_passing(error: UserError) -> bool:
    """Whether warehouse or brokers are away, or another process was quicker."""
    cause: BaseException | None = error
    while cause:
        if advice.is_loss(cause) or isinstance(cause, kafka_settings.Unreachable | Elsewhere):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _rules_of(mapping: Mapping | None) -> Rules | None:
    from ingestion.sources.transactions.mapping.rules import MappedRules

    return MappedRules(mapping) if mapping else None


def _rules_of_ledger(document: str, name: str) -> Rules:
    from ingestion.sources.transactions.mapping.rules import MappedRules
    from ingestion.sources.transactions.mapping.spec import parse_mapping

    return MappedRules(parse_mapping(document, "the mapping in the ledger", name))


def _rules_by_names(messages: Messages, label: str) -> Rules:
    from ingestion.sources.transactions.mapping.choose import names_in_json, rules_by_names

    values = (value for value in messages.values[:50] if value)
    return rules_by_names(names_in_json(values), label)
