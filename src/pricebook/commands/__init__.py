"""Commands that speak to the API as any client does: export, import, jobs."""
