"""Tests of the converters. Run: `python3 -m unittest discover tests/convert`"""

import unittest

import airbnb
import icecat
import rows


class Icecat(unittest.TestCase):
    ROW = {
        "id": "3920564", "name": "006R90321", "title": "Xerox 006R90321\x97 toner", "supplier": "Xerox", "price": 4995,
        "img_high": "http://example.com/a.jpg", "attr_n_weight": 2.0, "attr_n_height": 0.05, "attr_b_wireless": False,
        "attr_t_thermal_design_power__tdp_": "35 W\x84", "attr_t_empty": " ",
    }

    def test_a_row_is_a_listing(self):
        report = rows.Report()
        listing = icecat.convert(self.ROW, report)
        self.assertEqual(listing["external_id"], "3920564")
        self.assertEqual(listing["title"], "Xerox 006R90321 toner")
        self.assertEqual(listing["price"], {"amount": "49.95", "currency": "EUR"})
        self.assertEqual(listing["variants"], [{"sku": "006R90321"}])
        self.assertNotIn("category", listing)
        self.assertEqual(
            [(a["name"], a["value"]) for a in listing["attributes"]],
            [("weight", "2"), ("height", "0.05"), ("wireless", "no"), ("thermal design power (tdp)", "35 W")],
        )
        self.assertEqual(report["texts with control characters, which were removed"], 2)

    def test_names_are_readable(self):
        for key, name in [
            ("attr_t_connector_s_", "connector(s)"),
            ("attr_n_master__outer__case_width", "master outer case width"),
            ("attr_t_operating_temperature__t_t_", "operating temperature (t t)"),
            ("attr_b_cartridge_s__included", "cartridge(s) included"),
            ("attr_n_cpu_multiplier__bus_core_ratio_", "cpu multiplier (bus core ratio)"),
        ]:
            self.assertEqual(icecat.readable(key), name)


class Airbnb(unittest.TestCase):
    ROW = {
        "market": "hong-kong", "id": "1", "name": " A &amp; B\x01 ", "price": "$1,309.00", "host_id": "7", "room_type": "Entire home/apt",
        "property_type": "Entire rental unit", "latitude": "22.28", "longitude": "114.15", "amenities": '["Wifi \\u2013 fast"]',
        "picture_url": "https://example.com/1.jpg", "description": "One<br /><b>two</b>\tthree&#39;s", "beds": "2",
    }

    def test_a_row_is_a_listing(self):
        listing = airbnb.convert(self.ROW, rows.Report())
        self.assertEqual(listing["title"], "A & B")
        self.assertEqual(listing["price"], {"amount": "1309.00", "currency": "HKD"})
        self.assertEqual(listing["description"], "One\ntwo\tthree's")
        self.assertEqual(listing["category"], "places-to-stay/entire-home-apt/entire-rental-unit")
        self.assertEqual(listing["location"]["point"], {"lat": 22.28, "lon": 114.15})
        self.assertEqual(listing["seller_id"], airbnb.convert(self.ROW, rows.Report())["seller_id"])
        self.assertIn({"name": "amenity", "value": "Wifi – fast"}, listing["attributes"])

    def test_rows_without_price_or_title_are_left_out_and_counted(self):
        report = rows.Report()
        for change in ({"price": None}, {"name": ""}, {"price": None, "name": " "}, {"price": "free"}):
            self.assertIsNone(airbnb.convert(self.ROW | change, report))
        self.assertEqual(
            [reason for reason in sorted(report) if reason.startswith("rows left out")],
            [
                "rows left out: a price that cannot be read", "rows left out: no price", "rows left out: no price and no title",
                "rows left out: no title",
            ],
        )

    def test_amenities_come_in_two_formats(self):
        report = rows.Report()
        self.assertEqual(airbnb.amenities('{TV,"Cable TV","6\\" screen, \\\\"}', report), ["TV", "Cable TV", '6" screen, \\'])
        self.assertEqual(airbnb.amenities('["TV", "Caf\\u00e9"]', report), ["TV", "Café"])
        self.assertEqual(airbnb.amenities("{}", report), [])


if __name__ == "__main__":
    unittest.main()
