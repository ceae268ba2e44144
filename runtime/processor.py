"""This computer's processor: its name, and the instructions that decide how it multiplies 8-bit integers.

Fast kernels on x86 multiply unsigned activations by signed weights and add neighbouring products. VNNI adds in 32 bits;
older instructions add each two products in 16 bits, which saturate when the codes are large: 2 x 255 x 127 > 32767.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
X86 = frozenset({"x86_64", "AMD64", "i686"})
VNNI = frozenset({"avx512_vnni", "avx_vnni"})
# What kernels of 8-bit products are chosen by, by the kernel's names (x86, then ARM).
INTEGER_SETS = ("avx2", "avx512bw", "avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")


@dataclass(frozen=True, slots=True)
class Processor:
    """`architecture` as `uname -m` says; `flags`: instruction sets by the kernel's names, empty where it says none."""

    name: str
    architecture: str
    flags: frozenset[str]

    @property
    def integer_sets(self) -> tuple[str, ...]:
        """The instruction sets that kernels of 8-bit products are chosen by."""
        return tuple(name for name in INTEGER_SETS if name in self.flags)

    @property
    def saturates(self) -> bool:
        """Whether fast kernels of 8-bit products may saturate: x86 that is not known to have VNNI."""
        return self.architecture in X86 and not self.flags & VNNI


def this_processor(cpuinfo: Path = CPUINFO) -> Processor:
    """The first processor of this computer; `cpuinfo` is Linux's description of it."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = processor_of(text, platform.machine())
    return found if found.name else replace(found, name=platform.processor() or found.architecture)


def processor_of(cpuinfo: str, architecture: str) -> Processor:
    """The first processor that a text of /proc/cpuinfo describes; its `name` is empty where it has none."""
    lines = (line.partition(":") for line in cpuinfo.partition("\n\n")[0].splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    flags = frozenset(fields.get("flags", fields.get("Features", "")).split())
    return Processor(fields.get("model name", ""), architecture, flags)
