UPDATE runs SET decided = coalesce(decided::json ->> 'left_out', '{}');
ALTER TABLE runs RENAME COLUMN decided TO left_out;
