"""The page itself: template, style and script of this folder, and the run as data that only the script reads.

Goals, prompts and memories come from people and models and are never HTML: the script puts them in place as text. A
content security policy with the hashes of script and style holds even if that were broken: nothing else is executed,
nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from string import Template

import msgspec

from memrt.runtime.report.page import STYLE
from memrt.runtime.report.run.clip import Pictures
from memrt.runtime.report.run.document import RunReport

_FOLDER = Path(__file__).parent
# JSON that cannot end its script element, nor begin a comment in it; both are the same text to a JSON reader.
_IN_A_SCRIPT = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def page(report: RunReport, pictures: Pictures) -> str:
    """The whole HTML document."""
    style = STYLE.read_text(encoding="utf-8") + _file("page.css")
    script = _file("timeline.js") + _file("page.js")
    return Template(_file("page.html")).substitute(
        policy=_policy(style, script),
        title=escape(f"{report.about.policy or 'run'}: {report.about.goal}"),
        style=style,
        script=script,
        document=_data(report),
        pictures=_data([None if jpeg is None else _base64(jpeg) for jpeg in pictures.jpegs]),
        film=_base64(pictures.mp4),
    )


def _policy(style: str, script: str) -> str:
    style_hash, script_hash = (_base64(hashlib.sha256(text.encode()).digest()) for text in (style, script))
    return (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; "
        "img-src data:; media-src blob:; base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _data(value: object) -> str:
    return msgspec.json.encode(value).decode().translate(_IN_A_SCRIPT)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
