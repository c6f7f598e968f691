-- When a runner said goodbye, and whether it comes back. Its next call clears both.
ALTER TABLE runners ADD COLUMN left_at BIGINT;
ALTER TABLE runners ADD COLUMN left_for_good BOOLEAN NOT NULL DEFAULT FALSE;
