"""Test doubles of a Franka that speak libfranka's own protocol, and what judges a driver against them."""
