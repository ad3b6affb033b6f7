"""Reading catalogues, cleaning their text, and saying what became of their rows. What every converter shares."""

import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys
import unicodedata

# docs/API.md, Limits, in characters and items.
TITLE = 300
DESCRIPTION = 20_000
ATTRIBUTES = 200
ATTRIBUTE_NAME = 100
ATTRIBUTE_VALUE = 8_000
IMAGE_URL = 2_048
# command-api's own.
SKU = 100
BRAND = 100

# The newline and the tab are kept: the API takes them.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Report(collections.Counter):
    """Why rows were left out or changed, counted."""

    def print(self, file=sys.stderr):
        for reason, count in sorted(self.items()):
            print(f"{count:>8}  {reason}", file=file)


def lines(path):
    """The JSON objects of a file, one a line; `.zst` is unpacked on the way."""
    if path.suffix != ".zst":
        with open(path, encoding="utf-8") as rows:
            yield from map(json.loads, rows)
        return
    with subprocess.Popen(["zstd", "-dcq", str(path)], stdout=subprocess.PIPE, encoding="utf-8") as unpacked:
        yield from map(json.loads, unpacked.stdout)
    if unpacked.returncode:
        raise SystemExit(f"zstd could not unpack {path}")


def clean(text, report, limit):
    """The text without control characters and surrounding space, cut to its limit."""
    cleaned = CONTROL.sub("", text)
    if cleaned != text:
        report["texts with control characters, which were taken out"] += 1
    cleaned = unicodedata.normalize("NFC", cleaned).strip()
    if len(cleaned) > limit:
        report["texts too long, which were cut"] += 1
        cleaned = cleaned[:limit].rstrip()
    return cleaned


def one_line(text, report, limit):
    """The same, on one line."""
    return re.sub(r"\s+", " ", clean(text, report, limit))


def attribute(name, value, unit=None):
    return {"name": name, "value": value} | ({"unit": unit} if unit else {})


def within_limit(attributes, report):
    """A listing has so many attributes and no more."""
    if len(attributes) > ATTRIBUTES:
        report["listings with too many attributes, whose last ones were dropped"] += 1
    return attributes[:ATTRIBUTES]


def main(description, convert):
    """Converts the file that is named on the command line. `convert` makes a listing of a row, or counts why not."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("file", type=pathlib.Path, help="the catalogue, one JSON object a line, .zst or not")
    arguments.add_argument("-o", "--output", type=pathlib.Path, help="where the listings go (default: standard output)")
    arguments = arguments.parse_args()
    report = Report()
    output = open(arguments.output, "w", encoding="utf-8") if arguments.output else sys.stdout
    with output:
        for row in lines(arguments.file):
            report["rows read"] += 1
            listing = convert(row, report)
            if listing is None:
                continue
            report["rows converted"] += 1
            output.write(json.dumps(listing, ensure_ascii=False, separators=(",", ":")) + "\n")
    report.print()
