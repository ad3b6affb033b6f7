//! Texts that go with a change of stock into its event.

use service::problem::Fault;

/// In characters.
const NOTE: usize = 500;

/// Judges an optional text; returns it as it came.
pub fn judge(pointer: &str, text: Option<String>, faults: &mut Vec<Fault>) -> Option<String> {
    let text = text?;
    if text.is_empty() {
        faults.push(Fault::new(pointer, "must not be empty"));
    } else if text.chars().count() > NOTE {
        faults.push(Fault::new(pointer, format!("must have at most {NOTE} characters")));
    }
    if text.chars().any(|letter| letter.is_control() && letter != '\n' && letter != '\t') {
        faults.push(Fault::new(pointer, "must have no control characters but newline and tab"));
    }
    Some(text)
}
