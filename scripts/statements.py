#!/usr/bin/env python3
"""Makes docs/statements.md: which test proves which normative statement.

A test that proves a statement begins with its id: `mqtt5_3_1_2_24_...` for [MQTT-3.1.2-24] of 5.0,
`mqtt311_...` for 3.1.1, `section_...` where the standard has a rule without an id. Ids in
`docs/statements.txt` are all those a server can be tested for. `--check` fails when the page is
not what the tests say.
"""

import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
page = root / "docs" / "statements.md"
tests = {}
for path in sorted((root / "tests" / "scenarios").glob("*.rs")):
    text = path.read_text()
    for name in re.findall(r"#\[test\]\s+fn (\w+)", text):
        found = re.match(r"(mqtt5|mqtt311|section)_((?:\d+_)+)(.*)", name)
        if found:
            numbers = found[2].strip("_").split("_")
            if found[1] == "section":
                key = ("section", ".".join(numbers))
            else:
                key = (found[1], ".".join(numbers[:-1]) + "-" + numbers[-1])
            tests.setdefault(key, []).append(f"{path.stem}::{name}")
    # Tables of cases cite the statements they are for.
    for clause in re.findall(r'\("(\d[\d.]*-\d+) ', text):
        tests.setdefault(("mqtt5", clause), []).append(f"{path.stem}, in its table of cases")

ids = {"mqtt5": [], "mqtt311": []}
version = None
for line in (root / "docs" / "statements.txt").read_text().splitlines():
    if line.startswith("["):
        version = line.strip("[]")
    elif line.strip() and not line.startswith("#"):
        statement, _, what = line.partition(" ")
        ids[version].append((statement, what.strip()))

lines = [
    "# Which test proves which statement",
    "",
    "Made by `scripts/statements.py` from the names of the tests in `tests/scenarios`; do not edit.",
    "The statements are those of the two standards that a server can be tested for, in our words.",
    "A dash is a statement without a test of its own name; many of those are exercised by every",
    "test all the same.",
]
unknown = [f"{v} {i}" for (v, i) in tests if v != "section" and i not in dict(ids[v])]
for version, title in (("mqtt5", "MQTT 5.0"), ("mqtt311", "MQTT 3.1.1, where it differs")):
    have = sum((version, statement) in tests for statement, _ in ids[version])
    lines += ["", f"## {title}: {have} of {len(ids[version])}", "", "| id | statement | test |",
              "|---|---|---|"]
    for statement, what in ids[version]:
        names = "<br>".join(f"`{name}`" for name in tests.get((version, statement), [])) or "-"
        lines.append(f"| {statement} | {what} | {names} |")
lines += ["", "## Rules without an id", "", "| section | test |", "|---|---|"]
for (kind, section), names in sorted(tests.items()):
    if kind == "section":
        lines.append(f"| {section} | {'<br>'.join(f'`{name}`' for name in names)} |")
text = "\n".join(lines) + "\n"
if unknown:
    sys.exit("tests name statements that do not exist: " + ", ".join(unknown))
if "--check" in sys.argv:
    if not page.exists() or page.read_text() != text:
        sys.exit("docs/statements.md is not up to date: python3 scripts/statements.py")
else:
    page.write_text(text)
