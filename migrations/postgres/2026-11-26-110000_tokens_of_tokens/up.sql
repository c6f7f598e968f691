-- Whoever revokes a token revokes what was made with it.
ALTER TABLE api_tokens ADD COLUMN made_with TEXT;
CREATE INDEX api_tokens_made_with ON api_tokens (made_with);
