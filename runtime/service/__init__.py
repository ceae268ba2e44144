"""The service: a robot's computer loads a policy by itself at boot, and waits, disarmed, for an operator's word."""
