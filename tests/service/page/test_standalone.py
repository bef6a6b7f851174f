"""The file of a saved report: whole, closed to everything else, and safe for any text."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from service import page

REPORT = json.dumps({"loss": 0.5, "note": "</script><script>alert(1)</script>{{style}}"}).encode()


def sources(policy: str, directive: str) -> set[str]:
    [found] = re.findall(rf"{directive} ([^;]+)", policy)
    return {*found.split()}


def test_it_runs_its_own_scripts_and_nothing_else() -> None:
    text = page.standalone(REPORT, title='a "title" & <more>')
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'; ")
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digests = (hashlib.sha256(each.encode()).digest() for each in inside)
        hashes = {f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests}
        assert sources(policy, directive) == hashes
    assert not re.search(r"(?:src|href)=|@import|url\(", text)
    assert "<h1>a &quot;title&quot; &amp; &lt;more></h1>" in text


def test_the_report_and_the_arrays_are_in_it_as_they_came() -> None:
    arrays = bytes(range(256))
    text = page.standalone(REPORT, arrays)
    [report] = re.findall(r'<script type="application/json" id="report">(.*?)</script>', text)
    assert json.loads(report) == json.loads(REPORT)
    [held] = re.findall(r'<script type="text/plain" id="arrays">(.*?)</script>', text)
    assert base64.b64decode(held) == arrays


def test_each_module_is_in_it_once_and_after_those_it_imports() -> None:
    text = page.standalone(REPORT)
    names = re.findall(r'^modules\["([\w.]+)"\] = ', text, re.MULTILINE)
    assert len(names) == len({*names})
    assert names[-1] == "saved.js"
    for module in re.split(r"(?=^modules\[)", text, flags=re.MULTILINE)[1:]:
        name = re.findall(r'"([\w.]+)"', module)[0]
        for imported in re.findall(r'= modules\["([\w.]+)"\];', module):
            assert names.index(imported) < names.index(name)
    assert not re.search(r"^(?:import|export) ", text, re.MULTILINE)
