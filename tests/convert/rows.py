"""Shared by the converters: reading catalogues, cleaning text, and reporting which rows were changed or left out."""

import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys
import unicodedata

# The limits of docs/API.md, in characters or items.
TITLE = 300
DESCRIPTION = 20_000
ATTRIBUTES = 200
ATTRIBUTE_NAME = 100
ATTRIBUTE_VALUE = 8_000
IMAGE_URL = 2_048
# Limits that only command-api's code states.
SKU = 100
BRAND = 100

# Control characters except newline and tab, which the API accepts.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Report(collections.Counter):
    """Counts rows by the reason why they were left out or changed."""

    def print(self, file=sys.stderr):
        for reason, count in sorted(self.items()):
            print(f"{count:>8}  {reason}", file=file)


def lines(path):
    """Yields the JSON objects of a file with one object per line. Decompresses `.zst` files."""
    if path.suffix != ".zst":
        with open(path, encoding="utf-8") as rows:
            yield from map(json.loads, rows)
        return
    with subprocess.Popen(["zstd", "-dcq", str(path)], stdout=subprocess.PIPE, encoding="utf-8") as unpacked:
        yield from map(json.loads, unpacked.stdout)
    if unpacked.returncode:
        raise SystemExit(f"zstd could not decompress {path}")


def clean(text, report, limit):
    """Removes control characters and surrounding white space, and cuts the text to the limit."""
    cleaned = CONTROL.sub("", text)
    if cleaned != text:
        report["texts with control characters, which were removed"] += 1
    cleaned = unicodedata.normalize("NFC", cleaned).strip()
    if len(cleaned) > limit:
        report["texts too long, which were cut"] += 1
        cleaned = cleaned[:limit].rstrip()
    return cleaned


def one_line(text, report, limit):
    """As `clean`, with all white space replaced by single spaces."""
    return re.sub(r"\s+", " ", clean(text, report, limit))


def attribute(name, value, unit=None):
    return {"name": name, "value": value} | ({"unit": unit} if unit else {})


def within_limit(attributes, report):
    """Drops the attributes beyond the maximum number."""
    if len(attributes) > ATTRIBUTES:
        report["listings with too many attributes, whose last ones were dropped"] += 1
    return attributes[:ATTRIBUTES]


def main(description, convert):
    """Converts the file named on the command line.

    `convert(row, report)` returns a listing, or counts the reason in the report and returns None.
    """
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("file", type=pathlib.Path, help="the catalogue: one JSON object per line, .zst or not")
    arguments.add_argument("-o", "--output", type=pathlib.Path, help="the file to write (default: standard output)")
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
