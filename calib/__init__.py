"""Calibration sets recorded from episodes, and the ranges computed from them."""
