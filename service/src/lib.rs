//! What all programs need to run as a service: settings, telemetry, an operations port, HTTP, tokens, shutdown. It knows nothing of the
//! domain; a test holds it to that.
//!
//! Read it in the order of a program's life.

// 1. The start: settings from the environment, a clock, logs and traces.
pub mod clock;
pub mod settings;
pub mod telemetry;

// 2. The operations port: readiness, status and metrics.
pub mod lifecycle;
pub mod metrics;
pub mod ops;

// 3. Requests: the bearer of the token, what was sent, and what is wrong with it.
pub mod bearer;
pub mod http;
pub mod json;
pub mod problem;
mod serve;

// 4. Connections to servers that may be down for a while.
pub mod basic_auth;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;

// 5. All of it together, from the start to the stop.
pub mod program;
pub mod run;

/// Every request allocates many small futures and frees them on another thread. glibc's allocator took a fifth of the time of a cached
/// read (decision 0703).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Words of the marketplace. The programs have them; this crate must not.
    const DOMAIN: [&str; 12] = [
        "bid",
        "buyer",
        "catalogue",
        "inventory",
        "listing",
        "listings",
        "market",
        "marketplace",
        "reservation",
        "seller",
        "sellers",
        "stock",
    ];

    fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                // Tests may use examples of the domain.
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
                found.push((path.display().to_string(), code));
            }
        }
    }

    /// The words of a line of code: `InsufficientStock` and `insufficient_stock` are two words each.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut after_small = false;
        for character in line.chars() {
            if !character.is_ascii_alphabetic() || character.is_ascii_uppercase() && after_small {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut().filter(|_| character.is_ascii_alphabetic()) {
                word.push(character.to_ascii_lowercase());
            }
            after_small = character.is_ascii_lowercase();
        }
        words
    }

    #[test]
    fn no_word_of_the_domain_is_in_the_code() {
        assert!(words("Kind::InsufficientStock").contains(&"stock".to_owned()));
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        assert!(files.len() > 20, "{files:?}");
        for (file, code) in files {
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let found = words(line).into_iter().find(|word| DOMAIN.contains(&word.as_str()));
                assert_eq!(found, None, "{file}: {line}");
            }
        }
    }
}
