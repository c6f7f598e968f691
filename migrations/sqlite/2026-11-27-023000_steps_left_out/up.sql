-- Steps that a run leaves out because their `when` does not hold, as JSON: reasons by step.
ALTER TABLE runs ADD COLUMN left_out TEXT NOT NULL DEFAULT '{}';
