"""Cameras: one file per kind, a capture thread that fills a shared-memory ring, alignment of what several saw."""
