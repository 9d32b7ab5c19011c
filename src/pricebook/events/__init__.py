"""The log of events: in pages, and live."""
