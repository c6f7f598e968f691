ALTER TABLE projects DROP COLUMN heads_compared_at;
DROP TABLE branch_heads;
