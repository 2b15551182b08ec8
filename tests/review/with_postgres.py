"""Run a command with a PostgreSQL server of its own: ``python with_postgres.py COMMAND...``.

The server of Debian's package ``postgresql`` (or one on the PATH) is started in a temporary folder,
listens on a free port of this machine, and is gone afterwards. Where there is none, that is said
and the exit code is 0: `make test-review` then covers SQLite alone.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path


def _programs() -> Path | None:
    """The folder of ``initdb``, of the newest version."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((p.parent for p in folders), key=lambda p: float(p.parent.name), default=None)


def main(words: list[str]) -> int:
    """Start, run, stop."""
    programs = _programs()
    if programs is None:
        sys.stdout.write("SKIPPED: no PostgreSQL here (Debian: apt-get install postgresql)\n")
        return 0
    # The server refuses to run as root; Debian's package brings a user for it.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="millie-postgres-") as folder:
        shutil.chown(folder, user)
        data, control = str(Path(folder) / "data"), str(programs / "pg_ctl")

        def run(*command: str) -> None:
            subprocess.run(command, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)

        run(str(programs / "initdb"), "-D", data, "-A", "trust", "-U", user, "-E", "UTF8")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(control, "-D", data, "-w", "-o", options, "-l", f"{folder}/log", "start")
        try:
            url = f"postgresql://{user}@127.0.0.1:{port}/postgres"
            return subprocess.run(
                words, env={**os.environ, "MILLIE_REVIEW_DATABASE": url}, check=False
            ).returncode
        finally:
            run(control, "-D", data, "-m", "immediate", "stop")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
