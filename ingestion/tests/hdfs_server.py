"""A real HDFS for tests: a name node and a data node of Apache Hadoop, whose jars come by Maven."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from ingestion.object_store import open_store
from ingestion.tests.api_server import until
from ingestion.tests.brokers import copy_jars
from ingestion.tests.conftest import unused_port

IS_POSSIBLE = shutil.which("java") and shutil.which("mvn")
HADOOP = {
    f"org.apache.hadoop:{name}": "3.4.2"
    for name in ("hadoop-common", "hadoop-hdfs", "hadoop-hdfs-client")
}
SERVER = "org.apache.hadoop.hdfs.server"
NAME_NODE, DATA_NODE = f"{SERVER}.namenode.NameNode", f"{SERVER}.datanode.DataNode"


class HdfsServer:
    """A name node and a data node, each of which can be killed and started again.

    Args:
        folder: for jars, logs and what is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"hdfs://127.0.0.1:{unused_port()}"
        copy_jars(HADOOP, folder / "jars")
        for page in ("hdfs", "datanode"):  # the servers look for pages, which these jars have not
            (folder / "pages/webapps" / page).mkdir(parents=True)
        free = "127.0.0.1:0"
        self._settings = {
            "fs.defaultFS": self.url,
            "dfs.namenode.name.dir": f"{folder}/names",
            "dfs.datanode.data.dir": f"{folder}/blocks",
            "dfs.replication": "1",
            "dfs.namenode.http-address": free,
            "dfs.datanode.address": f"127.0.0.1:{unused_port()}",  # clients know it after a restart
            "dfs.datanode.http.address": free,
            "dfs.datanode.ipc.address": free,
            "dfs.permissions.enabled": "false",
        }
        subprocess.run(
            self._command(NAME_NODE, "-format", "-nonInteractive"),
            check=True,
            capture_output=True,
            timeout=120,
        )
        self.processes: dict[str, subprocess.Popen] = {}

    def start(self, *nodes: str) -> None:
        """Start nodes, or all of them, and wait until they serve."""
        for node in nodes or (NAME_NODE, DATA_NODE):
            with (self.folder / "log").open("ab") as log:
                self.processes[node] = subprocess.Popen(
                    self._command(node), stdout=log, stderr=log, cwd=self.folder
                )

        def stores() -> bool:
            with suppress(OSError, RuntimeError):  # a data node serves when the name node knows it
                open_store("hdfs").pipe_file(f"{self.url}/started", b"")
                open_store("hdfs").pipe_file(f"{self.url}/started", b"1")
                return True
            return False

        until(stores, "HDFS stores a file")

    def kill(self, *nodes: str) -> None:
        for node in nodes or tuple(self.processes):
            process = self.processes.pop(node)
            process.kill()
            process.wait()

    def _command(self, node: str, *more: str) -> list[str]:
        settings = [f"-D{name}={value}" for name, value in self._settings.items()]
        classes = f"{self.folder}/pages:{self.folder}/jars/*"
        return ["java", "-Xmx256m", "-cp", classes, node, *settings, *more]
