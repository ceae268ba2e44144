"""Settings for all tests: hypothesis never times its examples (machines are busy), and draws the same ones each run."""

from hypothesis import settings

settings.register_profile("memrt", deadline=None, derandomize=True)
settings.load_profile("memrt")
