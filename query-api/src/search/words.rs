//! The words of a search, and the languages that they may be in.

use std::sync::LazyLock;

use serde::Serialize;

use crate::question::QuestionError;

/// Longest text, in characters. A title has at most 300.
const LONGEST: usize = 1000;
/// Words beyond these are ignored: OpenSearch allows 1024 clauses in a query, and a word takes up to twelve.
const WORDS_MAX: usize = 24;
/// With more words misspellings are not matched: they take up to twenty clauses more per word.
const FUZZY_WORDS_MAX: usize = 12;
/// From this character on (symbols, emoji, scripts without spaces) each character counts as a word.
const WORDS_BY_THEMSELVES: char = '\u{2000}';

/// The words of one search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Words {
    text: String,
    #[serde(skip)]
    count: usize,
}

/// In which listings the field of a language is searched. The letters of the query decide this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InLanguage {
    /// In every listing.
    Everywhere,
    /// In listings whose language it is.
    WhereSaid,
    /// Nowhere.
    No,
}

impl Words {
    /// `None` if the text is blank: then the search is not restricted by words.
    pub fn new(text: &str) -> Result<Option<Self>, QuestionError> {
        if text.chars().count() > LONGEST {
            return Err(QuestionError::WordsTooLong(LONGEST));
        }
        let text = text.trim();
        let (end, count) = used_words(text);
        Ok((!text.is_empty()).then(|| Self { text: text[..end].to_owned(), count }))
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether misspellings are matched.
    pub fn may_be_fuzzy(&self) -> bool {
        self.count <= FUZZY_WORDS_MAX
    }

    /// Serbian uses both scripts. Latin text without its special letters may be in any language.
    pub fn in_serbian(&self) -> InLanguage {
        if self.has(&SERBIAN_LATIN) || (self.has_cyrillic() && !self.has(&RUSSIAN_ONLY)) {
            InLanguage::Everywhere
        } else if self.has_cyrillic() {
            InLanguage::No
        } else {
            InLanguage::WhereSaid
        }
    }

    /// Cyrillic text may be Russian unless it has a letter that only Serbian uses.
    pub fn in_russian(&self) -> InLanguage {
        if self.has_cyrillic() && !self.has(&SERBIAN_CYRILLIC) { InLanguage::Everywhere } else { InLanguage::No }
    }

    fn has_cyrillic(&self) -> bool {
        self.text.chars().any(|character| ('\u{400}'..='\u{4ff}').contains(&character))
    }

    fn has(&self, letters: &LazyLock<Vec<char>>) -> bool {
        self.text.chars().any(|character| letters.contains(&character))
    }
}

static SERBIAN_LATIN: LazyLock<Vec<char>> = LazyLock::new(|| both_cases("čćžšđ"));
static SERBIAN_CYRILLIC: LazyLock<Vec<char>> = LazyLock::new(|| both_cases("ђјљњћџ"));
static RUSSIAN_ONLY: LazyLock<Vec<char>> = LazyLock::new(|| both_cases("ёйщъыьэюя"));

fn both_cases(letters: &str) -> Vec<char> {
    letters.chars().chain(letters.to_uppercase().chars()).collect()
}

/// The length in bytes of the words that are used, and their number.
fn used_words(text: &str) -> (usize, usize) {
    let (mut count, mut in_word) = (0, false);
    for (at, character) in text.char_indices() {
        let alone = character >= WORDS_BY_THEMSELVES && !character.is_whitespace();
        let begins = alone || (character.is_alphanumeric() && !in_word);
        if begins && count == WORDS_MAX {
            return (at, count);
        }
        count += usize::from(begins);
        in_word = !alone && character.is_alphanumeric();
    }
    (text.len(), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        Words::new(text).unwrap().unwrap()
    }

    #[test]
    fn space_is_no_search() {
        assert_eq!(Words::new(" \t\n").unwrap(), None);
        assert_eq!(words("  power bank ").as_str(), "power bank");
        assert!(Words::new(&"x".repeat(LONGEST + 1)).is_err());
    }

    #[test]
    fn only_so_many_words_are_looked_at() {
        let many = vec!["a"; 100].join(" ");
        assert_eq!(words(&many).as_str().split_whitespace().count(), WORDS_MAX);
        assert_eq!(words(&"漢".repeat(100)).as_str().chars().count(), WORDS_MAX);
        assert_eq!(words(&"💥".repeat(100)).as_str().chars().count(), WORDS_MAX);
        assert!(words("one two").may_be_fuzzy() && !words(&many).may_be_fuzzy());
    }

    #[test]
    fn letters_say_the_language() {
        use InLanguage::{Everywhere, No, WhereSaid};
        for (text, serbian, russian) in [
            ("bicycle", WhereSaid, No),
            ("bicikli", WhereSaid, No),
            ("šešir", Everywhere, No),
            ("ŠEŠIR", Everywhere, No),
            ("љубав", Everywhere, No),
            ("бицикл", Everywhere, Everywhere),
            ("велосипеды", No, Everywhere),
            ("Ёлка", No, Everywhere),
        ] {
            assert_eq!((words(text).in_serbian(), words(text).in_russian()), (serbian, russian), "{text}");
        }
    }
}
