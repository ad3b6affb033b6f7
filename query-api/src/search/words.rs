//! The words of a search, and in which languages they may be.

use std::sync::LazyLock;

use serde::Serialize;
use service::problem::Problem;

/// Longer texts are refused, in characters. A title has at most 300.
const LONGEST: usize = 1000;
/// Words beyond these are not looked at: OpenSearch allows 1024 clauses in a query, and a word is up to a dozen.
const WORDS_MAX: usize = 24;
/// With more words than these no misspelling is looked for: each is up to twenty clauses more.
const FUZZY_WORDS_MAX: usize = 12;
/// From here on (punctuation, pictures, writing without spaces) a character is counted as a word of its own.
const WORDS_BY_THEMSELVES: char = '\u{2000}';

/// What somebody looks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Words {
    text: String,
    #[serde(skip)]
    count: usize,
}

/// Whether a language's own field is searched: the query's letters say so, not a guess at one language for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InLanguage {
    /// In every listing.
    Everywhere,
    /// In listings that say that they are in that language.
    WhereSaid,
    /// Nowhere.
    No,
}

impl Words {
    /// `None` when there is nothing but space: then everything is found.
    pub fn read(text: &str) -> Result<Option<Self>, Problem> {
        if text.chars().count() > LONGEST {
            return Err(Problem::malformed(format!("The parameter q may have at most {LONGEST} characters")));
        }
        let text = text.trim();
        let (end, count) = beginning(text);
        Ok((!text.is_empty()).then(|| Self { text: text[..end].to_owned(), count }))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether misspellings may be looked for.
    #[must_use]
    pub fn may_be_fuzzy(&self) -> bool {
        self.count <= FUZZY_WORDS_MAX
    }

    /// Serbian is written in both scripts; without its letters, Latin text may be any language.
    #[must_use]
    pub fn in_serbian(&self) -> InLanguage {
        if self.has(&SERBIAN_LATIN) || (self.has_cyrillic() && !self.has(&RUSSIAN_ONLY)) {
            InLanguage::Everywhere
        } else if self.has_cyrillic() {
            InLanguage::No
        } else {
            InLanguage::WhereSaid
        }
    }

    /// Cyrillic is read as Russian, unless a letter says that it is Serbian.
    #[must_use]
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

/// Where the words end that are looked at, in bytes, and how many they are.
fn beginning(text: &str) -> (usize, usize) {
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
        Words::read(text).unwrap().unwrap()
    }

    #[test]
    fn space_is_no_search() {
        assert_eq!(Words::read(" \t\n").unwrap(), None);
        assert_eq!(words("  power bank ").as_str(), "power bank");
        assert!(Words::read(&"x".repeat(LONGEST + 1)).is_err());
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
