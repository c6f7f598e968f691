-- The body of a webhook call, compressed. `body` is empty where this is not null: calls of before keep theirs there.
ALTER TABLE deliveries ADD COLUMN packed_body BYTEA;
-- It would be compressed again for nothing.
ALTER TABLE deliveries ALTER COLUMN packed_body SET STORAGE EXTERNAL;
