#!/usr/bin/env python3
"""Converts the Icecat catalogue (electronics) into the input format of `command-api import`.

The data has no category, seller or stock. The listings get no category, the importing user is the seller, and the stock is
derived from the product's number, so that about one product in fifty is sold out.
"""

import re

import rows

# Prices are in minor units.
MINOR_UNITS = 100
CURRENCY = "EUR"
# The stock is the product's number modulo this.
STOCK_MODULUS = 50


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
        "stock": int(row["id"]) % STOCK_MODULUS,
    }
    if description := rows.clean(row.get("short_description") or "", report, rows.DESCRIPTION):
        listing["description"] = description
    if brand := rows.one_line(row.get("supplier") or "", report, rows.BRAND):
        listing["brand"] = brand
    # The data has one picture in four sizes; this is the largest.
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
    """Restores a readable name from a key, in which underscores replace all punctuation.

    `attr_n_thermal_design_power__tdp_` becomes `thermal design power (tdp)`.
    """
    name = key[len("attr_x_"):]
    name = re.sub(r"_s_(?=_|$)", "(s)", name)
    name = re.sub(r"__([a-z0-9]+(?:_[a-z0-9]+)*)_$", r" (\1)", name)
    return re.sub(r"[_ ]+", " ", name).strip()


if __name__ == "__main__":
    rows.main(__doc__, convert)
