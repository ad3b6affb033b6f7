#!/usr/bin/env python3
"""Makes listings of the Icecat catalogue (electronics), in the form that `command-api import` reads.

The data has no category, no seller and no stock: there is no category then, the seller is whoever imports, and the stock is
derived from the product's number, so that about one in fifty is sold out.
"""

import re

import rows

# Prices are in minor units.
MINOR_UNITS = 100
CURRENCY = "EUR"
PIECES = 50


def convert(row, report):
    title = rows.one_line(row.get("title") or "", report, rows.TITLE)
    if not title:
        report["rows left out: no title"] += 1
        return None
    if not isinstance(row.get("price"), int) or row["price"] < 0:
        report["rows left out: no price"] += 1
        return None

    listing = {
        "external_id": row["id"],
        "title": title,
        "price": {"amount": f"{row['price'] // MINOR_UNITS}.{row['price'] % MINOR_UNITS:02}", "currency": CURRENCY},
        "language": "en",
        "attributes": rows.within_limit(attributes(row, report), report),
        "stock": int(row["id"]) % PIECES,
    }
    if description := rows.clean(row.get("short_description") or "", report, rows.DESCRIPTION):
        listing["description"] = description
    if brand := rows.one_line(row.get("supplier") or "", report, rows.BRAND):
        listing["brand"] = brand
    # All four pictures are one in four sizes.
    if (picture := row.get("img_high")) and len(picture) <= rows.IMAGE_URL:
        listing["images"] = [{"url": picture, "alt": title}]
    # The manufacturer's part number.
    if part_number := rows.one_line(row.get("name") or "", report, rows.ATTRIBUTE_VALUE):
        if len(part_number) <= rows.SKU:
            listing["variants"] = [{"sku": part_number}]
        else:
            report["part numbers too long for a SKU, which were dropped"] += 1
    return listing


def attributes(row, report):
    found = []
    for key, value in row.items():
        if not key.startswith("attr_"):
            continue
        if isinstance(value, bool):
            text = "yes" if value else "no"
        elif isinstance(value, float):
            text = f"{value:f}".rstrip("0").rstrip(".")
        else:
            text = rows.clean(value, report, rows.ATTRIBUTE_VALUE)
        if text:
            found.append(rows.attribute(readable(key)[: rows.ATTRIBUTE_NAME].rstrip(), text))
        else:
            report["attributes without a value, which were dropped"] += 1
    return found


def readable(key):
    """`attr_n_thermal_design_power__tdp_` is `thermal design power (tdp)`: the keys have lost everything but letters."""
    name = key[len("attr_x_"):]
    name = re.sub(r"_s_(?=_|$)", "(s)", name)
    name = re.sub(r"__([a-z0-9]+(?:_[a-z0-9]+)*)_$", r" (\1)", name)
    return re.sub(r"[_ ]+", " ", name).strip()


if __name__ == "__main__":
    rows.main(__doc__, convert)
