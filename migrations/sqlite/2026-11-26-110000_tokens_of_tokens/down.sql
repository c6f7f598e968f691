DROP INDEX api_tokens_made_with;
ALTER TABLE api_tokens DROP COLUMN made_with;
