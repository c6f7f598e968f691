-- Who made a release's commits, as JSON; NULL for what was read before this was noted.
ALTER TABLE runs ADD COLUMN authorship TEXT;
ALTER TABLE releases ADD COLUMN authorship TEXT;

-- The addresses that people commit with, in lower case: no two people share one.
CREATE TABLE user_emails (
    email TEXT NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL REFERENCES users (name)
);
CREATE INDEX user_emails_of_user ON user_emails (user_name);
