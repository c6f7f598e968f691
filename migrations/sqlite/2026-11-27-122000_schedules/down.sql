ALTER TABLE branch_files DROP COLUMN schedules;
DROP TABLE schedule_moments;
