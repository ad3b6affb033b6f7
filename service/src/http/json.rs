//! Reading JSON so that a caller learns what is wrong and where.

use std::borrow::Cow;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use crate::problem::{Fault, Problem};

/// Nobody nests further by intention. Refusing it here keeps the answer the same wherever in the body it happens.
const DEPTH_LIMIT: usize = 100;

/// Reads one JSON document. Not JSON, not UTF-8, or nested too deeply: `malformed`. A wrong type: `invalid`, with its pointer.
/// Members that nobody asked for come back beside the value, so that they can be told together with the rules that the
/// value breaks; a `T` with `deny_unknown_fields` would only tell the first.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<Fault>), Problem> {
    // serde_json does not look into strings that it skips.
    let text = std::str::from_utf8(bytes).map_err(|error| Problem::malformed(format!("The body is not UTF-8: {error}")))?;

    if is_too_deep(text) {
        return Err(Problem::malformed(format!("The body is nested more than {DEPTH_LIMIT} levels deep")));
    }

    let mut unknown = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut reader, &mut track);
    let value =
        serde_ignored::deserialize(tracked, |path| unknown.push(Fault::new(pointer_of_ignored(&path), "is not known here")));

    let value = value.map_err(|error| refuse(text, &error, &track.path()))?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok((value, unknown))
}

fn refuse(text: &str, error: &serde_json::Error, path: &serde_path_to_error::Path) -> Problem {
    match error.classify() {
        // A wrong type ends the reading. What follows may still not be JSON, and that comes first.
        Category::Data => match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Problem::invalid(vec![fault(error, path)]),
            Err(error) => not_json(&error),
        },
        Category::Syntax | Category::Eof | Category::Io => not_json(error),
    }
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::malformed(format!("The body is not JSON: {error}"))
}

/// Counts brackets, those in strings left out.
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
    // The pointer says where; the line and column of the text are no help beside it.
    let told = error.to_string();
    let told = told.split(" at line ").next().unwrap_or_default();
    let missing = told.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    if let Some(name) = missing {
        push(&mut pointer, name);
        return Fault::new(pointer, "is required");
    }
    Fault::new(pointer, told)
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

/// Adds a reference token, escaped as RFC 6901 says.
fn push(pointer: &mut String, token: &str) {
    let mut token = Cow::Borrowed(token);
    if token.contains(['~', '/']) {
        token = Cow::Owned(token.replace('~', "~0").replace('/', "~1"));
    }
    pointer.push('/');
    pointer.push_str(&token);
}
