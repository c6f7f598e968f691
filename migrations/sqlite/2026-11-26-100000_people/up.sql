-- People besides the first administrator: they can be disabled, and no two names differ in case alone.
ALTER TABLE users ADD COLUMN disabled_at BIGINT;
ALTER TABLE users ADD COLUMN last_sign_in_at BIGINT;
CREATE UNIQUE INDEX users_by_name ON users (lower(name));
CREATE INDEX sessions_of_user ON sessions (user_name);
CREATE INDEX api_tokens_of_owner ON api_tokens (created_by);
