ALTER TABLE projects DROP COLUMN default_branch;
DROP TABLE branch_files;
DROP TABLE run_keys;
