-- What was decided of a run when its file was read, as JSON: the steps that it leaves out, and now the runs
-- that it takes the place of.
ALTER TABLE runs RENAME COLUMN left_out TO decided;
UPDATE runs SET decided = '{"left_out":' || decided || '}';
