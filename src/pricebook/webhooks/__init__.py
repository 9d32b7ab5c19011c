"""Webhooks: signed POSTs that tell systems of events (Standard Webhooks 1.0)."""
