#!/usr/bin/env python3
"""Makes listings of the Airbnb data (places to stay in ten markets), in the form that `command-api import` reads.

Every host is a seller of its own, so it has to be imported by an admin. A price is in its market's currency, which the data
writes as `$` everywhere. The data has no stock: each place is one piece.
"""

import html
import json
import re
import uuid

import rows

# Country and currency are not in the data: they are those of the market.
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
# Hosts are numbers there and UUIDs here: always the same one for the same host.
HOSTS = uuid.uuid5(uuid.NAMESPACE_URL, "https://www.airbnb.com/users/show/")

PRICE = re.compile(r"\$(\d{1,3}(?:,\d{3})*|\d+)(\.\d{2})?")
# One element of `{TV,"Cable TV","6\" screen"}`, as Postgres writes an array.
ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"]+)')
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
LINE_END = re.compile(r"<br\s*/?>|</p>", re.IGNORECASE)

# Column, attribute, unit.
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
    """Newer data has them as JSON, older data as Postgres writes an array."""
    if text.startswith("["):
        report["amenities as JSON"] += 1
        return json.loads(text)
    report["amenities as a Postgres array"] += 1
    return [re.sub(r"\\(.)", r"\1", quoted) if quoted else bare for quoted, bare in ELEMENT.findall(text)]


def plain(text):
    """The text of HTML: lines stay lines, entities are what they stand for."""
    lines = TAG.sub("", LINE_END.sub("\n", text))
    return re.sub(r"\n{3,}", "\n\n", html.unescape(lines)).strip()


def slug(name):
    """`Entire home/apt` is one level of a path: `entire-home-apt`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "other"


if __name__ == "__main__":
    rows.main(__doc__, convert)
