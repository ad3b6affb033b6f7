//! Clauses of OpenSearch that hold others.

use serde_json::{Map, Value};

/// An object of values that are there already, and are moved into it. `json!` copies what it is given, with all that is in it,
/// once for each level around it; it is for the leaves.
pub fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let mut object = Map::new();
    for (name, value) in members {
        object.insert(name.to_owned(), value);
    }
    Value::Object(object)
}

/// Must match all of these, which are worth nothing.
pub fn filtered(filters: Vec<Value>) -> Value {
    object([("bool", object([("filter", Value::Array(filters))]))])
}
