"""The two-rate loop: the high level names a subgoal about once a second, the low level turns it into action chunks."""
