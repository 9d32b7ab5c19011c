"""Jobs: long work that a person waits for; it has progress, a log and a result."""
