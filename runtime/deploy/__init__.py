"""Puts a bundle on the robot's computer, proves it there, and takes it back. `README.md` tells the whole way.

`host` runs on the workstation, `target` on the robot's computer; what both must agree on lies here.
"""
