"""Which plan an export follows: the user's file, the target's own, or one precision throughout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from memrt.export.plan import Plan, Scheme, load_plan
from memrt.export.target import Target
from memrt.runtime.errors import MemrtError


def chosen_plan(target: Target, engines: Sequence[str], precision: Scheme | None, file: Path | None) -> Plan:
    """The plan of `file`, or the target's for `engines`, all of it in one `precision` if that is given.

    Raises MemrtError when both are given, and for what the target cannot run.
    """
    if file is not None:
        if precision is not None:
            raise MemrtError(
                "two plans",
                expected="--plan or --precision",
                found="both",
                fix="give the schemes in the plan file, or one precision for all engines",
            )
        plan = load_plan(file)
        chosen = {name: plan.engine(name) for name in engines}
        for scheme in {used for engine in chosen.values() for used in (engine.scheme, *engine.keep.values())}:
            if scheme != "fp32":  # every target keeps single weights in it
                target.check(scheme)
        return Plan(engines=chosen)
    plan = target.default_plan(engines)
    if precision is not None:
        target.check(precision)
        uniform = {"scheme": precision, "keep": {}}
        plan = Plan(engines={n: msgspec.structs.replace(e, **uniform) for n, e in plan.engines.items()})
    return plan
