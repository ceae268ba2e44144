"""What the simulator draws its cameras' pictures with: EGL, by Mesa in software or by NVIDIA's driver.

Sources: MuJoCo's "Rendering" (MUJOCO_GL); libglvnd (which EGL library serves is chosen at run time); Debian's packages
libegl-mesa0 and libgl1-mesa-dri, whose drivers are in libgallium since Mesa 24.2.
"""

from __future__ import annotations

from memrt.runtime.doctor.finding import Finding, fine, judged, unknown
from memrt.runtime.doctor.snapshot import Snapshot
from memrt.runtime.doctor.system import INSTALL

# As the Makefile installs them.
MEND = f"{INSTALL} libegl1 libegl-mesa0 libgl1-mesa-dri libgles2"
FILES = ("/usr/lib/*/dri/swrast_dri.so", "/usr/lib/dri/swrast_dri.so")
COMMANDS = (("ldconfig", "-p"),)
LIBRARIES = ("libEGL.so.1", "libGLESv2.so.2")
MESA, GALLIUM, NVIDIA = "libEGL_mesa.so.0", "libgallium-", "libEGL_nvidia.so.0"


def examine(snapshot: Snapshot) -> list[Finding]:
    """The one finding about rendering."""
    about, libraries = "software rendering", snapshot.printed("ldconfig")
    if "mujoco" not in snapshot.packages:
        return [fine(about, "not needed: the simulator is not installed (extra `sim`)")]
    if not libraries:
        return [unknown(about, "no `ldconfig` to ask")]
    missing = [name for name in LIBRARIES if name not in libraries]
    driver = MESA in libraries and (GALLIUM in libraries or any(snapshot.matching(pattern) for pattern in FILES))
    if not missing and (driver or NVIDIA in libraries):
        return [fine(about, "Mesa" if driver else "NVIDIA's EGL")]
    found = f"missing: {', '.join(missing) or 'a driver that draws'}"
    simulated = snapshot.robot is not None and snapshot.robot.simulated
    return [judged(simulated, about, found, "memrt run --robot sim cannot draw what its cameras see", MEND)]
