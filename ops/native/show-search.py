#!/usr/bin/env python3
"""Prints a search and a short form of its response. Argument: the URL; standard input: the response."""

import json
import sys

answer = json.load(sys.stdin)
items = answer.get("items")
if not items:
    sys.exit(f"The search {sys.argv[1]} found nothing. Its response: {json.dumps(answer, ensure_ascii=False)[:500]}")
total = answer["total"]
more = "at least " if total["relation"] == "gte" else ""
degraded = ", degraded" if answer["degraded"] else ""
print(f"\nGET {sys.argv[1]}")
print(f"    {more}{total['value']} found in {answer['took_ms']} ms{degraded}")
for item in items:
    price = item["price"]
    place = (item.get("location") or {}).get("city") or ""
    print(f"    {item['title'][:60]:60}  {price['amount']:>12} {price['currency']}  {place}")
