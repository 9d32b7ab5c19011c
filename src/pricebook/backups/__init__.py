"""Backups: made, kept, looked at, and restored."""
