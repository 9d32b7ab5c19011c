"""What people hear: watches, the inbox, and mail."""
