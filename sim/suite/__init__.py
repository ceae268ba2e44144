"""The memory suite: every task by every policy, episode by episode, stored so that nothing is computed twice."""
