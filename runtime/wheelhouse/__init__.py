"""Everything that a robot's computer installs, in one folder that needs no network: wheels, lock, licence notes."""
