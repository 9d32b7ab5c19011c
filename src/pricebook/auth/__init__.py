"""Who is calling: log-ins, the sessions they open, and API keys."""
