"""MuJoCo tabletop with a Franka FR3, the memory tasks, the scripted expert, the evaluator."""
