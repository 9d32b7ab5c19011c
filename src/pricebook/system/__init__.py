"""The service about itself: is it alive, can it answer, and what is its API."""
