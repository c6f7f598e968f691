DROP TABLE test_reports;
