ALTER TABLE effects DROP COLUMN leased_by;
DROP TABLE leases;
