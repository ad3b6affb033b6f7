//! The order of hits, and where a page starts.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;
use views::listing_search::field;

use super::query::object;
use crate::cursor::CursorError;
use crate::filters::{Near, Places};
use crate::question::Sort;

/// The `sort` clause. The id comes last, so that the order is total.
pub fn clause(sort: Sort, places: &Places) -> Value {
    let by = |field, direction| object([(field, Value::from(direction))]);
    let then_by_id = |first| Value::Array(vec![first, by(field::ID, "asc")]);
    match sort {
        Sort::Relevance => then_by_id(by("_score", "desc")),
        Sort::PriceUp => then_by_id(by(field::PRICE, "asc")),
        Sort::PriceDown => then_by_id(by(field::PRICE, "desc")),
        Sort::Title => then_by_id(by("title.sort", "asc")),
        Sort::Newest => newest(),
        Sort::Distance => match places.near {
            Some(Near { point, .. }) => then_by_id(json!({"_geo_distance": {field::POINT: point, "order": "asc", "unit": "m"}})),
            None => newest(),
        },
    }
}

fn newest() -> Value {
    json!([{field::CREATED_AT: "desc"}, {field::ID: "desc"}])
}

/// The sort values of a hit, for a cursor. Numbers stay the text that OpenSearch wrote: parsed and formatted again, one may differ in
/// its last digit, and a listing would be shown twice, or never.
pub fn keys(sort_values: &[&RawValue]) -> Vec<String> {
    sort_values
        .iter()
        .map(|value| serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned()))
        .collect()
}

/// The `search_after` of a page. The keys are checked, because a cursor is not signed.
pub fn search_after(keys: &[String]) -> Result<Value, CursorError> {
    let [first, id] = keys else { return Err(CursorError::Unreadable) };
    let first = number(first).ok_or(CursorError::Unreadable)?;
    let id: Uuid = id.parse().map_err(|_| CursorError::Unreadable)?;
    Ok(json!([first, id]))
}

/// Parses with the standard library, which is exact for every float; `serde_json` is not.
fn number(text: &str) -> Option<Value> {
    let whole = text.parse::<i64>().ok().map(Value::from);
    whole.or_else(|| text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b";

    #[test]
    fn a_page_begins_exactly_where_the_last_one_ended() {
        for number in ["12.345679", "129.99", "1763717400771318000", "0.1", "4350.0000000000005", "1.0E10"] {
            let raw = RawValue::from_string(number.to_owned()).unwrap();
            let id = RawValue::from_string(format!("{ID:?}")).unwrap();
            let after = search_after(&keys(&[&raw, &id])).unwrap();
            assert_eq!(after[0].to_string().parse::<f64>(), number.parse::<f64>());
            assert_eq!(after[1], ID);
        }
        assert_eq!(number("1763717400771318123"), Some(json!(1_763_717_400_771_318_123_i64)));
    }

    #[test]
    fn keys_are_checked() {
        let keys = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for bad in [&[ID][..], &["1", "2"], &["x", ID], &["NaN", ID], &["inf", ID], &["1", "2", ID], &["{}", ID], &["null", ID]] {
            assert_eq!(search_after(&keys(bad)), Err(CursorError::Unreadable), "{bad:?}");
        }
    }
}
