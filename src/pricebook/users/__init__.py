"""The people who may log in, and what each of them may do."""
