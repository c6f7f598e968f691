-- A run of a pull request from a fork waits for somebody's word, and a delivery may tell that a pull request was closed.
-- SQLite changes a CHECK in place so (https://www.sqlite.org/lang_altertable.html, 7); a copy of the tables could be
-- millions of rows.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, '''fetching'', ''preparing''', '''fetching'', ''waiting_for_approval'', ''preparing''')
WHERE type = 'table' AND name = 'runs';
UPDATE sqlite_schema
SET sql = replace(sql, '(''built'', ''ignored''', '(''built'', ''closed'', ''ignored''')
WHERE type = 'table' AND name = 'deliveries';
PRAGMA writable_schema = RESET;
