"""Multiplies what a database of the benchmark holds: the newest run of each project, with its attempt or its
place in the queue, its steps and its delivery, until there are `total` more. Entries of the audit trail are not made: no page of a run
that was never there reads them.

fill.py DATABASE TOTAL, where the former is a file of SQLite, or a URL that the program named by PSQL takes
"""

import os
import sqlite3
import subprocess
import sys

place, total = sys.argv[1], int(sys.argv[2])


class Sqlite:
    COLUMNS = "SELECT name FROM pragma_table_info('{}')"
    COMMIT = "printf('%040x', n)"

    def __init__(self):
        self.database = sqlite3.connect(place)
        self.database.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -400000; PRAGMA foreign_keys = OFF;")

    def rows(self, sql):
        rows = [[str(value) for value in row] for row in self.database.execute(sql)]
        self.database.commit()
        return rows

    def end(self):
        pass


class Postgresql:
    COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_name = '{}' ORDER BY ordinal_position"
    COMMIT = "lpad(to_hex(n), 40, '0')"

    def rows(self, sql):
        told = subprocess.run([os.environ["PSQL"], "-XAtq", "-v", "ON_ERROR_STOP=1", place, "-c", sql],
                              check=True, capture_output=True, text=True).stdout
        return [line.split("|") for line in told.splitlines()]

    def end(self):
        # What its own housekeeping does within a minute or so.
        self.rows("VACUUM ANALYZE")


database = Postgresql() if place.startswith("postgres:") else Sqlite()


def multiply(table, where, changes):
    """One row for each number from `first` to `last`, like the row at `where` but for `changes`."""
    columns = [name for [name] in database.rows(database.COLUMNS.format(table))]
    taken = [column for column in columns if changes.get(column, "") is not None]
    values = ", ".join(changes.get(column, f"{table}.{column}") for column in taken)
    database.rows(
        f"INSERT INTO {table} ({', '.join(taken)}) WITH RECURSIVE wanted(n) AS (SELECT {first} UNION ALL"
        f" SELECT n + 1 FROM wanted WHERE n < {last}) SELECT {values} FROM wanted, {table} WHERE {where}"
    )


projects = [name for [name] in database.rows("SELECT name FROM projects ORDER BY name")]
each = total // len(projects)
for project in projects:
    [[run, number]] = database.rows(
        f"SELECT id, number FROM runs WHERE project = '{project}' ORDER BY number DESC LIMIT 1")
    first, last = int(number) + 1, int(number) + each
    new = f"'{project}.' || n"
    multiply("runs", f"id = '{run}'", {"id": new, "number": "n", "commit_sha": database.COMMIT,
                                       "created_at": "created_at + n"})
    multiply("pending_jobs", f"run = '{run}'", {"run": new, "created_at": "created_at + n"})
    multiply("attempts", f"run = '{run}'", {"id": f"{new} || '.a' || number", "run": new,
                                            "token_hash": f"'{project}' || n || token_hash"})
    multiply("steps", f"attempt LIKE '{run}.a%'", {"attempt": f"{new} || '.a1'"})
    multiply("deliveries", f"run = '{run}'", {"id": None, "run": new, "delivery_id": f"'filled-{project}-' || n",
                                              "semantic_key": f"'filled-{project}-' || n"})
    database.rows(f"UPDATE lanes SET next_run = {last + 1} WHERE project = '{project}'")
database.end()
print(database.rows("SELECT count(*) FROM runs")[0][0])
