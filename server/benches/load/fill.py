"""Multiplies what a database of the benchmark holds: the newest run of each project, with its attempt or its
place in the queue, its steps and its delivery, until there are `total` more. Entries of the audit trail are not made: no page of a run
that was never there reads them.

fill.py DATABASE TOTAL
"""

import sqlite3
import sys

path, total = sys.argv[1], int(sys.argv[2])
database = sqlite3.connect(path)
database.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -400000; PRAGMA foreign_keys = OFF;")


def multiply(table, where, changes):
    """One row for each number of `wanted`, like the row at `where` but for `changes`."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    taken = [column for column in columns if changes.get(column, "") is not None]
    values = ", ".join(changes.get(column, f"{table}.{column}") for column in taken)
    database.execute(
        f"INSERT INTO {table} ({', '.join(taken)}) SELECT {values} FROM wanted, {table} WHERE {where}"
    )


projects = [row[0] for row in database.execute("SELECT name FROM projects ORDER BY name")]
each = total // len(projects)
for project in projects:
    run, number = database.execute(
        "SELECT id, number FROM runs WHERE project = ? ORDER BY number DESC LIMIT 1", [project]
    ).fetchone()
    database.execute("CREATE TEMP TABLE wanted AS WITH RECURSIVE n(n) AS (SELECT ? UNION ALL SELECT n + 1 FROM n"
                     " WHERE n < ?) SELECT n FROM n", [number + 1, number + each])
    new = f"'{project}.' || n"
    commit = "printf('%040x', n)"
    multiply("runs", f"id = '{run}'", {"id": new, "number": "n", "commit_sha": commit, "created_at": "created_at + n"})
    multiply("pending_jobs", f"run = '{run}'", {"run": new, "created_at": "created_at + n"})
    multiply("attempts", f"run = '{run}'", {"id": f"{new} || '.a' || number", "run": new,
                                            "token_hash": f"'{project}' || n || token_hash"})
    multiply("steps", f"attempt LIKE '{run}.a%'", {"attempt": f"{new} || '.a1'"})
    multiply("deliveries", f"run = '{run}'", {"id": None, "run": new, "delivery_id": f"'filled-{project}-' || n",
                                              "semantic_key": f"'filled-{project}-' || n"})
    database.execute("UPDATE lanes SET next_run = ? WHERE project = ?", [number + each + 1, project])
    database.execute("DROP TABLE wanted")
    database.commit()
print(database.execute("SELECT count(*) FROM runs").fetchone()[0])
