"""Robots and cameras: the ZMQ link, its wire format, the drivers."""
