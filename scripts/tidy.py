#!/usr/bin/env python3
"""Limits of the code that no lint knows, as a ratchet: what exceeds them is listed here by name,
and the list only shrinks.

Production lines only: from the first `#[cfg(test)]` on a file does not count, nor do tests,
benches and fuzz targets.
"""

import pathlib
import re
import subprocess
import sys

FILE_LINES_MAX = 400
FILE_LINES_HARD = 600
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100

# Longer than FILE_LINES_MAX, with the reason.
LONG_FILES: dict[str, str] = {}
# Longer than FUNCTION_LINES_MAX, with the reason.
LONG_FUNCTIONS: dict[str, str] = {}

root = pathlib.Path(__file__).resolve().parent.parent
names = subprocess.run(
    ["git", "ls-files", "*.rs"], cwd=root, check=True, capture_output=True, text=True
).stdout.split()
problems = []
seen = set()
for name in names:
    if re.search(r"(^|/)(tests|benches|fuzz)/", name):
        continue
    lines = (root / name).read_text().splitlines()
    if not lines or not lines[0].startswith("//!"):
        problems.append(f"{name}: does not open with //! and what it is for")
    end = next((i for i, line in enumerate(lines) if line.startswith("#[cfg(test)]")), len(lines))
    lines = lines[:end]
    if len(lines) > FILE_LINES_MAX:
        seen.add(name)
        if name not in LONG_FILES or len(lines) > FILE_LINES_HARD:
            problems.append(f"{name}: {len(lines)} lines, at most {FILE_LINES_MAX}")
    start = None
    for number, line in enumerate(lines):
        if len(line) > COLUMNS_MAX:
            problems.append(f"{name}:{number + 1}: {len(line)} columns, at most {COLUMNS_MAX}")
        found = re.match(r"( *)(pub(\([a-z]+\))? )?(const )?fn (\w+)", line)
        if found and start is None:
            start = (number, found[1], found[5])
        if start and line == start[1] + "}":
            length, key = number - start[0] + 1, f"{name}:{start[2]}"
            if length > FUNCTION_LINES_MAX:
                seen.add(key)
                if key not in LONG_FUNCTIONS:
                    problems.append(f"{key}: {length} lines, at most {FUNCTION_LINES_MAX}")
            start = None
        elif start and number == start[0] and line.rstrip().endswith("}"):
            start = None
        elif start and line.rstrip().endswith(";") and number == start[0]:
            start = None
for key in [*LONG_FILES, *LONG_FUNCTIONS]:
    if key not in seen:
        problems.append(f"{key}: is within the limits now, take it off the list in {sys.argv[0]}")
if problems:
    print("\n".join(problems))
    sys.exit(1)
