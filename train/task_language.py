"""The words of the memory tasks: what the reference tokenizer is trained on and what text pre-training draws from.

Sentences follow the report's appendix A and figure 3; the vocabulary covers all seven tasks of SPECS section 5, so
that policies for the other tasks can be trained from the same base.
"""

from __future__ import annotations

from collections.abc import Iterator

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "cyan", "white", "black", "gray", "pink", "brown")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
CARDINALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TIMES = ("once", "twice", "three times", "four times", "five times", "six times")
OBJECTS = ("cube", "target", "button", "bin", "container", "peg", "gripper", "arm", "table", "robot", "scene", "object")

_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant to help guide the robot to complete the task by predicting a sequence of language "
    "subgoals. You also maintain a compact memory summary of relevant past events between turns.",
    "You are a helpful assistant to help guide the robot to complete the task by predicting a sequence of grounded "
    "language subgoals. You also maintain TWO compact memories between turns: a textual action memory of what has "
    "happened so far (wrapped in <mem>...</mem> tags) and a spatial memory describing the current scene layout "
    "(wrapped in <spatial_mem>...</spatial_mem> tags). Output the next subgoal, then both memories, in that order.",
    "The task goal is: ",
    "The history of previous predicted language subgoals are: 1. ; 2. ; 3. ",
    "The history of previous predicted grounded language subgoals are: 1. ; 2. ; 3. ",
    "This is the initial turn for prediction",
    "The current action memory (a brief summary of relevant past events): <mem></mem>",
    "The current memory (a brief summary of relevant past events): <mem></mem>",
    "The current spatial memory (a description of the current scene): <spatial_mem></spatial_mem>",
    "What's the next language subgoal based on current observation?",
    "What's the next grounded language subgoal based on current observation?",
    "No actions had been completed yet.",
    "No observations yet.",
    "(none yet)",
    "Describe the scene.",
    "Repeat the text: ",
    "Where is the red cube? Where is the target? Where is the button? What does the gripper hold? nothing",
    "What\u2019s the next language subgoal",  # the report's typographic apostrophe
    "system\nuser\nassistant\n",
    "You guide a robot through a task. For each image, name the one grounded language subgoal the robot should follow "
    "now. You keep no notes between turns. Judging by this image alone, what is the grounded language subgoal now?",
    "task: state: current subgoal: action: history: memory: goal: subgoal: frames: keyframe: positions: image: ",
    "Predict the next subgoal of the robot from the goal and the current image. Answer with the subgoal only. "
    "Nothing is remembered between turns. You see what you did before and one camera image.",
)

_OTHER_TASKS = (
    "put two red cubes and one green cube into the bin, then press the button to stop",
    "put the red cube into the bin for the second time",
    "hold the red cube, move it over the right-side target, then the left-side target, repeating this back and forth "
    "motion three times, then put it down and press the button to stop",
    "swing the red cube to the right-side target for the first time; put the red cube onto the table",
    "press the button so that the moving cube stops on the target at its third visit; wait; remain still",
    "press the first button, then press the second button, watch the containers swap, and pick up the container that "
    "hides the red cube",
    "pick up the container hiding the green cube at the left; it was covered; the containers swapped places",
    "pick up all highlighted cubes and put each back, then press the button again to stop",
    "Button at top left pressed. Bin lower-left empty. Visible cubes: red, green, blue. Target right.",
    "the cube is near, above, below, behind, in front of, between, inside, under, on, off, at, to, from, with, and",
)


# Goals, subgoals and memories of all seven tasks, worded as `sim/tasks` and the memory labels word them.
_TASKS = (
    "put one red cube, two green cubes and three blue cubes into the bin, then press the button to stop",
    "pick up the first red cube <120, 88>; put it into the bin <140, 75>; press the button <60, 100>",
    "pick up the red cube, move it to the right-side target and then to the left-side target, repeating this "
    "right-to-left swing motion three times, then put down the cube and press the button to stop",
    "move to the top of the right-side target <140, 75> for the first time; put the red cube on the table",
    "press the button to stop the cube just as it reaches the target for the third time",
    "move to the top of the button <60, 100> to prepare; remain static for the second visit",
    "press the button <60, 100> to stop the cube on the target",
    "first press the button, then pick up the container hiding the red cube, finally pick up another container hiding "
    "the green cube; first press both buttons on the table, then pick up the container",
    "pick up the container <120, 88> that hides the red cube; put down the container; press the second button",
    "first press the button, then pick up all highlighted cubes, finally press the button again to stop",
    "pick up the first highlighted cube <120, 88>, which is red; place the cube onto the table",
    "container <120, 88>; right button <60, 100>; left button <60, 100>; left-side target <140, 75>; right-side target "
    "<140, 75>; bin <140, 75>; highlight <120, 88>; gripper <90, 100> holding the container",
    "I put two red cubes into the bin and picked up a red cube. I put them in. I put it down.",
    "I moved the red cube to the right-side target once and to the left-side target twice, then put it down.",
    "I moved to the top of the button and waited while the cube visited the target twice, then pressed the button.",
    "I pressed both buttons, picked up the container that hid the red cube and put it down. I pressed the first.",
    "I picked up and put back the red cube and picked up the next highlighted blue cube; pressed the button again",
    "The cube has visited the target once. It passed the target. It came from the left side and is on the right side.",
    "The highlighted cubes were red; was highlighted; The red cube is hidden in the container, hides it; under",
    "The containers have swapped. Cubes: red at <120, 88>. Containers: covered by; uncovered; not yet; moving; moved",
    "no more; remaining; inside; visible; hidden; still there; put back; picked; in total; over the target; beside it",
    '{"current_subtask": "press the button <60, 100>", "keyframe_positions": [1, 2, 3, 4]} ```json []',
)


def goal_text(colour: str, times: int) -> str:
    """PickXtimes' goal in the phrasing of the report's figure 3."""
    repeat = f", repeating this action {CARDINALS[times]} times" if times > 1 else ""
    return f"pick up the {colour} cube and place it on the target{repeat}, then press the button to stop"


def corpus() -> Iterator[str]:
    """Every line the tokenizer learns from; order and content are fixed."""
    yield from _PROMPTS
    yield from _OTHER_TASKS
    yield from _TASKS
    for colour in COLOURS:
        for times in range(1, 6):
            yield goal_text(colour, times)
        for ordinal in ORDINALS:
            yield f"pick up the {colour} cube <120, 88> for the {ordinal} time"
            yield f"pick up the {colour} cube for the {ordinal} time"
            yield f"I placed the {colour} cube on the target and picked it up a {ordinal} time."
        yield f"place the {colour} cube onto the target <140, 75>"
        yield f"place the {colour} cube onto the target"
        yield f"I am holding the {colour} cube <120, 88>. I am ready to pick up the {colour} cube again."
        yield f"{colour} cube <120, 88>; target <140, 75>; button <60, 100>; gripper open"
        yield f"{colour} cube <120, 88>; target <140, 75>; button <60, 100>; gripper <90, 100> closed"
        yield f"gripper <90, 100> holding the {colour} cube"
        for count in TIMES:
            yield f"I picked up the {colour} cube {count} and placed it on the target <140, 75> {count}."
    for noun in OBJECTS:
        yield f"the {noun} is here; The {noun} was there; {noun}s; a {noun}; an {noun}; each {noun}; every {noun}"
    yield "press the button <60, 100> to stop"
    yield "press the button to stop"
    yield "I pressed the button <60, 100> to stop. I have not pressed the button. I did it. It is done. I put it down."
    yield "I moved, swung, dropped, released, grasped, held, lifted, pushed, opened, closed, saw, waited, started, "
    yield "So far I have placed it; now last; next; still; already; then; before; after; completed; finished; cycle"
    yield "; ".join(ORDINALS) + "; " + "; ".join(CARDINALS) + "; " + ", ".join(TIMES)
    yield '{"current_subtask": "pick up the red cube", "keyframe_positions": [1, 2, 3]} true false null'
