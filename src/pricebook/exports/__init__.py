"""Exports: the whole list as a stream, or as a file that a job makes."""
