ALTER TABLE releases DROP COLUMN descendants;
