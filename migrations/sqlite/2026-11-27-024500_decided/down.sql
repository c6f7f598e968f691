UPDATE runs SET decided = coalesce(json_extract(decided, '$.left_out'), '{}');
ALTER TABLE runs RENAME COLUMN decided TO left_out;
