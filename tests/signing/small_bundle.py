"""A bundle of a few small files, unsigned."""

from pathlib import Path

from memrt.runtime.bundle import EngineRecord, write_bundle
from memrt.runtime.config import load_policy

FILES = {
    "hl/decoder.onnx": b"decoder" * 20,
    "hl/config.json": b"{}",
    "ll/step.onnx": b"step" * 30,
    "report.json": b"{}",
}


def make_bundle(folder: Path, **more: bytes) -> Path:
    staging = folder.with_name(f"{folder.name}.staging")
    for relative, content in (FILES | more).items():
        (staging / relative).parent.mkdir(parents=True, exist_ok=True)
        (staging / relative).write_bytes(content)
    engines = {
        name: EngineRecord(file=f"{name}.onnx", precision="fp32", inputs=(), outputs=())
        for name in ("hl/decoder", "ll/step")
    }
    write_bundle(staging, folder, policy=load_policy("am_grounded"), precision="fp32", engines=engines)
    return folder
