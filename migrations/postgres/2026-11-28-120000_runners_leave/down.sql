ALTER TABLE runners DROP COLUMN left_for_good;
ALTER TABLE runners DROP COLUMN left_at;
