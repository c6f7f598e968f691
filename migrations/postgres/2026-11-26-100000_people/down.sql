DROP INDEX api_tokens_of_owner;
DROP INDEX sessions_of_user;
DROP INDEX users_by_name;
ALTER TABLE users DROP COLUMN last_sign_in_at;
ALTER TABLE users DROP COLUMN disabled_at;
