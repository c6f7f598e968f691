-- Who of several servers does what only one is to do, and which of them live. Held until a time, so
-- that what a killed server held is taken over.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    held_until BIGINT NOT NULL
);
-- The server that performs a leased effect: it alone prolongs the lease.
ALTER TABLE effects ADD COLUMN leased_by TEXT;
