ALTER TABLE deliveries DROP COLUMN packed_body;
