"""Operations on whole versions: log, open, read, download, verify, compare, warm."""
