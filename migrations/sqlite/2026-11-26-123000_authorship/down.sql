DROP TABLE user_emails;
ALTER TABLE releases DROP COLUMN authorship;
ALTER TABLE runs DROP COLUMN authorship;
