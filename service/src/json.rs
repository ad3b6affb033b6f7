//! Parses JSON documents, and reports what is wrong and where. It knows no transport: a use case parses documents with it too.

mod strict;

use std::borrow::Cow;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use crate::problem::{FAULTS_LIMIT, Fault, Problem};

/// Why a document cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonError {
    /// It is not JSON, not UTF-8, or nested too deeply.
    Malformed(String),
    /// It is JSON, but a value has the wrong type.
    Invalid(Fault),
}

impl JsonError {
    /// The same as faults of the document, for a document that this program wrote itself.
    #[must_use]
    pub fn into_fault(self) -> Fault {
        match self {
            Self::Malformed(detail) => Fault::new("", detail),
            Self::Invalid(fault) => fault,
        }
    }
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Malformed(detail) => Self::malformed(detail),
            JsonError::Invalid(fault) => Self::invalid(vec![fault]),
        }
    }
}

/// The deepest nesting of a body. It is checked before parsing, so that the answer does not depend on where it happens.
const DEPTH_LIMIT: usize = 100;

/// The longest detail of one fault, in bytes.
const DETAIL_LIMIT: usize = 300;

/// Parses one JSON document. Unknown members are returned beside the value, so that they can be reported together with the rules that the
/// value breaks; a `T` with `deny_unknown_fields` would report only the first.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<Fault>), JsonError> {
    // serde_json does not check the encoding of strings that it skips.
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::Malformed(format!("The body is not UTF-8: {error}")))?;

    if is_too_deep(text) {
        return Err(JsonError::Malformed(format!("The body is nested more than {DEPTH_LIMIT} levels deep")));
    }

    let mut unknown = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(strict::Strict(&mut reader), &mut track);
    let value = serde_ignored::deserialize(tracked, |path| {
        if unknown.len() <= FAULTS_LIMIT {
            unknown.push(Fault::new(pointer_of_ignored(&path), "is not known here"));
        }
    });

    let value = value.map_err(|error| refuse(text, &error, &track.path()))?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok((value, unknown))
}

fn refuse(text: &str, error: &serde_json::Error, path: &serde_path_to_error::Path) -> JsonError {
    match error.classify() {
        // A wrong type ends the parsing. If the rest is not JSON, that is reported instead.
        Category::Data => match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => JsonError::Invalid(fault(error, path)),
            Err(error) => not_json(&error),
        },
        Category::Syntax | Category::Eof | Category::Io => not_json(error),
    }
}

fn not_json(error: &serde_json::Error) -> JsonError {
    JsonError::Malformed(format!("The body is not JSON: {error}"))
}

/// Counts brackets outside of strings.
fn is_too_deep(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > DEPTH_LIMIT {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn fault(error: &serde_json::Error, path: &serde_path_to_error::Path) -> Fault {
    let mut pointer = pointer(path);
    // The pointer shows the place; line and column are removed.
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before);
    for (of_member, detail) in [("missing field `", "is required"), ("duplicate field `", "is given twice")] {
        if let Some(name) = text.strip_prefix(of_member).and_then(|rest| rest.strip_suffix('`')) {
            push(&mut pointer, name);
            return Fault::new(pointer, detail);
        }
    }
    Fault::new(pointer, shortened(&in_words_of_json(text)))
}

/// Replaces the names of Rust types in an error of serde by those of JSON types.
fn in_words_of_json(text: &str) -> String {
    const WHOLE: [&str; 12] = ["i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32", "u64", "u128", "usize"];
    let Some((found, expected)) = text.rsplit_once("expected ") else { return text.to_owned() };
    let expected = match expected {
        whole if WHOLE.contains(&whole) => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "an array",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    let found = found.replacen("invalid type: sequence", "invalid type: array", 1).replacen(
        "invalid type: map",
        "invalid type: object",
        1,
    );
    format!("{found}expected {expected}")
}

/// Shortens an error of serde, which repeats the wrong value; that may be as long as the body.
fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(DETAIL_LIMIT);
    if end == text.len() { text.to_owned() } else { format!("{}…", &text[..end]) }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;

    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => push(&mut pointer, &index.to_string()),
            Segment::Map { key } => push(&mut pointer, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

fn pointer_of_ignored(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;

    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => {
            let mut pointer = pointer_of_ignored(parent);
            push(&mut pointer, &index.to_string());
            pointer
        }
        Path::Map { parent, key } => {
            let mut pointer = pointer_of_ignored(parent);
            push(&mut pointer, key);
            pointer
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => pointer_of_ignored(parent),
    }
}

/// Appends a reference token, escaped as in RFC 6901.
fn push(pointer: &mut String, token: &str) {
    let mut token = Cow::Borrowed(token);
    if token.contains(['~', '/']) {
        token = Cow::Owned(token.replace('~', "~0").replace('/', "~1"));
    }
    pointer.push('/');
    pointer.push_str(&token);
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Price {
        amount: String,
        currency: Option<String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Step {
        Stay,
        Move { by: i8 },
        Say(String),
    }

    #[derive(Debug, Deserialize)]
    struct Everything {
        price: Option<Price>,
        prices: Vec<Price>,
        by_name: std::collections::BTreeMap<String, Price>,
        steps: Vec<Step>,
        pair: (i64, f64),
        any: Value,
        raw: Box<RawValue>,
        #[serde(default, deserialize_with = "Option::deserialize")]
        flag: Option<bool>,
    }

    const GOOD: &str = r#"{"price":{"amount":"1"},"prices":[{"amount":"2","currency":"RSD"}],"by_name":{"a":{"amount":"3"}},
        "steps":["stay",{"move":{"by":-1}},{"say":"hi \u00e9"}],"pair":[1,2.5],"any":{"x":[null,true]},"raw":{"k": 1},"flag":null}"#;

    fn pointer_of(text: &str) -> String {
        match read::<Everything>(text.as_bytes()).map(|_| ()).unwrap_err() {
            JsonError::Malformed(detail) => detail,
            JsonError::Invalid(fault) => fault.pointer,
        }
    }

    #[test]
    fn objects_and_arrays_are_read_as_what_they_are() {
        let (read, unknown) = read::<Everything>(GOOD.as_bytes()).unwrap();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert_eq!(read.price.unwrap(), Price { amount: "1".to_owned(), currency: None });
        assert_eq!((read.prices.len(), read.by_name["a"].amount.as_str()), (1, "3"));
        assert_eq!(read.steps, [Step::Stay, Step::Move { by: -1 }, Step::Say("hi \u{e9}".to_owned())]);
        assert_eq!((read.pair, read.raw.get(), read.flag), ((1, 2.5), r#"{"k": 1}"#, None));
        assert_eq!(read.any, serde_json::json!({ "x": [null, true] }));
    }

    #[test]
    fn an_array_does_not_pass_for_an_object() {
        for (there, instead, pointer) in [
            (r#"{"amount":"1"}"#, r#"["1",null]"#, "/price"),
            (r#"{"amount":"2","currency":"RSD"}"#, r#"["2","RSD"]"#, "/prices/0"),
            (r#"{"amount":"3"}"#, r#"["3",null]"#, "/by_name/a"),
            (r#"{"by":-1}"#, "[-1]", "/steps/1"),
        ] {
            assert!(pointer_of(&GOOD.replacen(there, instead, 1)).starts_with(pointer), "{instead}");
        }
        assert_eq!(pointer_of("[null,[],{},[],[1,2],null,null,null]"), "");
    }

    #[test]
    fn what_is_told_is_not_as_long_as_what_was_sent() {
        let long = "é".repeat(10_000);
        let text = GOOD.replace("\"stay\"", &format!("\"{long}\""));
        let fault = read::<Everything>(text.as_bytes()).map(|_| ()).unwrap_err().into_fault();
        assert!(fault.detail.len() < 2 * DETAIL_LIMIT, "{fault:?}");
        let many = (0..20_000).map(|number| format!("\"u{number}\":1,")).collect::<Vec<_>>().concat();
        let (_, unknown) = read::<Price>(format!("{{{many}\"amount\":\"1\"}}").as_bytes()).unwrap();
        let problem = Problem::invalid(unknown);
        assert_eq!(problem.errors.len(), FAULTS_LIMIT);
        assert!(problem.detail.contains("more than"), "{}", problem.detail);
    }

    #[test]
    fn types_are_told_in_words_of_json() {
        for (told, better) in [
            ("invalid type: sequence, expected struct PriceDraft", "invalid type: array, expected an object"),
            ("invalid type: map, expected a sequence", "invalid type: object, expected an array"),
            ("invalid type: floating point `1.5`, expected i64", "invalid type: floating point `1.5`, expected a whole number"),
            (
                "invalid type: string \"expected u8\", expected u8",
                "invalid type: string \"expected u8\", expected a whole number",
            ),
            ("unknown variant `x`, expected one of `a`, `b`", "unknown variant `x`, expected one of `a`, `b`"),
            ("too bad", "too bad"),
        ] {
            assert_eq!(in_words_of_json(told), better);
        }
    }

    #[test]
    fn a_member_given_twice_is_pointed_at() {
        assert_eq!(pointer_of(&GOOD.replacen("\"amount\":\"1\"", "\"amount\":\"1\",\"amount\":\"2\"", 1)), "/price/amount");
    }

    #[test]
    fn unknown_members_are_found_at_every_depth() {
        let text = GOOD
            .replace(r#""by":-1"#, r#""by":-1,"to":2"#)
            .replace(r#""amount":"3""#, r#""amount":"3","tax":{}"#)
            .replace(r#""x":"#, r#""unknown to nobody":1,"x":"#);
        let (_, unknown) = read::<Everything>(text.as_bytes()).unwrap();
        let pointers: Vec<&str> = unknown.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers.len(), 2, "{pointers:?}");
        assert_eq!(pointers[0], "/by_name/a/tax");
        assert!(pointers[1].starts_with("/steps/1"), "{pointers:?}");
    }
}
