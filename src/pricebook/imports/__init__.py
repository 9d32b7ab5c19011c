"""Imports: a file of items, staged by COPY, checked as a set, and applied in one transaction."""
