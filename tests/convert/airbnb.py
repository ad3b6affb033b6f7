#!/usr/bin/env python3
"""Converts the Airbnb data (accommodation in ten markets) into the input format of `command-api import`.

Every host becomes a seller, so the import needs the token of an admin. Prices are in the currency of the market, although the
data writes `$` everywhere. The data has no stock: each place gets a stock of 1.
"""

import html
import json
import re
import uuid

import rows

# City, country and currency of each market; the data does not contain them.
MARKETS = {
    "antwerp": ("Antwerp", "BE", "EUR"),
    "athens": ("Athens", "GR", "EUR"),
    "boston": ("Boston", "US", "USD"),
    "dublin": ("Dublin", "IE", "EUR"),
    "edinburgh": ("Edinburgh", "GB", "GBP"),
    "hong-kong": ("Hong Kong", "HK", "HKD"),
    "menorca": ("Menorca", "ES", "EUR"),
    "munich": ("Munich", "DE", "EUR"),
    "vaud-ch": ("Vaud", "CH", "CHF"),
    "washington-dc": ("Washington", "US", "USD"),
}
# Namespace of the sellers' UUIDs, which are derived from the numeric host ids.
HOSTS = uuid.uuid5(uuid.NAMESPACE_URL, "https://www.airbnb.com/users/show/")

PRICE = re.compile(r"\$(\d{1,3}(?:,\d{3})*|\d+)(\.\d{2})?")
# One element of a Postgres array literal such as `{TV,"Cable TV","6\" screen"}`.
ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"]+)')
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
LINE_END = re.compile(r"<br\s*/?>|</p>", re.IGNORECASE)

# Column, name of the attribute, unit.
FACTS = [
    ("accommodates", "accommodates", None),
    ("bedrooms", "bedrooms", None),
    ("beds", "beds", None),
    ("bathrooms_text", "bathrooms", None),
    ("minimum_nights", "minimum nights", None),
    ("maximum_nights", "maximum nights", None),
    ("room_type", "room type", None),
    ("neighbourhood_cleansed", "neighbourhood", None),
    ("number_of_reviews", "reviews", None),
    ("review_scores_rating", "rating", None),
]


def convert(row, report):
    title = rows.one_line(html.unescape(row.get("name") or ""), report, rows.TITLE)
    price = row.get("price")
    if not title or not price:
        report["rows left out: no " + " and no ".join(what for what, has in (("price", price), ("title", title)) if not has)] += 1
        return None
    amount = PRICE.fullmatch(price)
    if not amount:
        report["rows left out: a price that cannot be read"] += 1
        return None
    city, country, currency = MARKETS[row["market"]]

    listing = {
        "external_id": row["id"],
        "seller_id": str(uuid.uuid5(HOSTS, row["host_id"])),
        "title": title,
        "category": f"places-to-stay/{slug(row['room_type'])}/{slug(row['property_type'])}",
        "price": {"amount": amount[1].replace(",", "") + (amount[2] or ""), "currency": currency},
        "attributes": rows.within_limit(attributes(row, report), report),
        "location": {
            "country": country,
            "city": city,
            "point": {"lat": float(row["latitude"]), "lon": float(row["longitude"])},
        },
        "images": [{"url": row["picture_url"], "alt": title}],
        "stock": 1,
    }
    parts = [plain(row.get(part) or "") for part in ("description", "neighborhood_overview")]
    if description := rows.clean("\n\n".join(part for part in parts if part), report, rows.DESCRIPTION):
        listing["description"] = description
    return listing


def attributes(row, report):
    found = []
    for column, name, unit in FACTS:
        if value := rows.one_line(row.get(column) or "", report, rows.ATTRIBUTE_VALUE):
            found.append(rows.attribute(name, value, unit))
    if row.get("host_is_superhost") in ("t", "f"):
        found.append(rows.attribute("superhost", "yes" if row["host_is_superhost"] == "t" else "no"))
    for amenity in amenities(row["amenities"], report):
        if value := rows.one_line(html.unescape(amenity), report, rows.ATTRIBUTE_VALUE):
            found.append(rows.attribute("amenity", value))
    return found


def amenities(text, report):
    """Parses the amenities: a JSON array in newer data, a Postgres array literal in older data."""
    if text.startswith("["):
        report["amenities as JSON"] += 1
        return json.loads(text)
    report["amenities as a Postgres array"] += 1
    return [re.sub(r"\\(.)", r"\1", quoted) if quoted else bare for quoted, bare in ELEMENT.findall(text)]


def plain(text):
    """Returns the text of HTML: line breaks are kept, entities are decoded."""
    lines = TAG.sub("", LINE_END.sub("\n", text))
    return re.sub(r"\n{3,}", "\n\n", html.unescape(lines)).strip()


def slug(name):
    """Returns a name as one level of a category path: `Entire home/apt` becomes `entire-home-apt`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "other"


if __name__ == "__main__":
    rows.main(__doc__, convert)
