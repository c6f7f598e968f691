UPDATE runs SET word = 'preparing' WHERE word = 'waiting_for_approval';
UPDATE deliveries SET decision = 'ignored' WHERE decision = 'closed';
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, ', ''waiting_for_approval''', '') WHERE type = 'table' AND name = 'runs';
UPDATE sqlite_schema SET sql = replace(sql, ', ''closed''', '') WHERE type = 'table' AND name = 'deliveries';
PRAGMA writable_schema = RESET;
