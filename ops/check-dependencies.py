#!/usr/bin/env python3
"""Fails on banned dependencies, unused dependencies, and licences that are not in the list of allowed ones.

Reads `cargo tree`, which needs no extra tool. `cargo metadata` is not usable: its graph also contains dependencies that are only
mentioned by weak features (ring, for example). Prints one line per fault, and exits with 1 if there is any.
"""

import pathlib
import re
import subprocess
import sys

ALLOWED = {
    "MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unicode-3.0", "BSL-1.0",
    "CDLA-Permissive-2.0", "0BSD", "MIT-0", "Unlicense",
}

# name -> (refused below this version, or None for always; why)
BANNED = {
    "openssl-sys": (None, "one TLS stack: rustls"),
    "native-tls": (None, "one TLS stack: rustls"),
    "ring": (None, "one crypto provider: aws-lc-rs"),
    "rsa": (None, "RUSTSEC-2023-0071"),
    "hyper": ((1, 0), "the 0.14 line has ended"),
    "rustls": ((0, 23), "older lines choose ring"),
}


def allowed(expression: str) -> bool:
    """Evaluates an SPDX expression: OR needs one allowed side, AND both."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def either():
        verdict = both()
        while peek() == "OR":
            take()
            verdict = both() or verdict
        return verdict

    def both():
        verdict = one()
        while peek() == "AND":
            take()
            verdict = one() and verdict
        return verdict

    def one():
        name = take()
        if name == "(":
            verdict = either()
            take()
            return verdict
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in ALLOWED

    return either()


def unused():
    """Yields dependencies that the package's code does not use, and workspace dependencies that no package names."""
    manifests = sorted(pathlib.Path(".").glob("*/Cargo.toml"))
    named = "\n".join(manifest.read_text() for manifest in manifests)
    shared = re.search(r"^\[workspace.dependencies\]\n(.*?)(?=^\[|\Z)", pathlib.Path("Cargo.toml").read_text(), re.M | re.S)
    for name in re.findall(r"^([\w-]+)", shared.group(1), re.M):
        if not re.search(rf"^{re.escape(name)}(?![\w-])", named, re.M):
            yield f"Cargo.toml names {name}, which no package depends on"
    for manifest in manifests:
        code = "\n".join(file.read_text() for file in manifest.parent.rglob("*.rs"))
        for section in re.findall(r"^\[(?:dev-)?dependencies\]\n(.*?)(?=^\[|\Z)", manifest.read_text(), re.M | re.S):
            for name in re.findall(r"^([\w-]+)", section, re.M):
                if not re.search(rf"\b{name.replace('-', '_')}\b(::|;|!| as )", code):
                    yield f"{manifest} names {name}, which nothing in {manifest.parent} uses"


def main() -> int:
    tree = subprocess.run(
        ["cargo", "tree", "--workspace", "--locked", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}\t{l}"],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    packages = set()
    for line in filter(None, tree.splitlines()):
        package, licence = line.split("\t")
        name, version = package.split()[:2]
        packages.add((name, version.removeprefix("v"), licence.removesuffix(" (*)").strip()))
    faults = list(unused())
    for name, version, licence in sorted(packages):
        if name in BANNED:
            below, why = BANNED[name]
            number = tuple(int(part) for part in re.match(r"(\d+)\.(\d+)", version).groups())
            if below is None or number < below:
                faults.append(f"{name} {version} is banned: {why}")
        if not licence or not allowed(licence):
            faults.append(f"{name} {version}: licence {licence or 'not stated'!r} is not in the list of allowed licences")
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(packages)} packages, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
