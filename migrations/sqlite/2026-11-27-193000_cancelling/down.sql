DROP INDEX runs_cancelling;
