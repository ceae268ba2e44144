"""Grippers that a driver can have on its arm."""
