"""What keeps this computer from running a robot well, what it costs, and the command that mends it (`memrt doctor`).

Looking and judging are apart. `collect` and `measure` fill a `Snapshot`: texts of files below /proc and /sys, what
tools print, a few measurements. Every other file here is one domain: a pure function from a snapshot to findings. So a
snapshot that was saved on one computer is judged on another, and the tests judge computers that they do not run on.
"""
