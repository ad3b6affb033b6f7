#!/usr/bin/env python3
"""Checks that .env.example lists exactly the variables in the programs' --help. Argument: the folder of the built programs.

Prints one line per fault, and exits with 1 if there is any.
"""

import pathlib
import re
import subprocess
import sys

PROGRAMS = ("command-api", "query-api", "projector")
ROOT = pathlib.Path(__file__).resolve().parent.parent


def read_by(program: pathlib.Path, *subcommand: str) -> set[str]:
    """Returns every variable in the help of a program and of all its subcommands."""
    help_text = subprocess.run([program, *subcommand, "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout
    names = set(re.findall(r"\[env: (\w+)", help_text))
    commands = re.search(r"^Commands:\n((?:  .*\n)+)", help_text, re.MULTILINE)
    for command in re.findall(r"^  (\S+)", commands.group(1), re.MULTILINE) if commands else ():
        if command != "help":
            names |= read_by(program, *subcommand, command)
    return names


def main() -> int:
    binaries = pathlib.Path(sys.argv[1])
    needed = set().union(*(read_by(binaries / program) for program in PROGRAMS))
    # The _FILE variants of secrets are described once, at the top of the file.
    needed = {name for name in needed if not (name.endswith("_FILE") and name.removesuffix("_FILE") in needed)}
    given = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    scripts = "".join(path.read_text() for path in (ROOT / "ops").rglob("*") if path.is_file() and path.suffix in ("", ".bash"))
    ours = {name for name in given if f"${{{name}:-" in scripts}

    faults = [f"{name} is read by a program, but not in .env.example" for name in sorted(needed - given)]
    faults += [f"{name} is in .env.example, but no program or script reads it" for name in sorted(given - needed - ours)]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(needed)} variables of the programs, {len(given - needed)} of the scripts, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
