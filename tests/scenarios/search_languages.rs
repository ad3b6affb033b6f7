//! Search in the languages of the market: Serbian in both scripts, Russian and English.

use acceptance::{Marketplace, a_listing};
use reqwest::Url;

/// Title and declared language of each listing.
const LISTINGS: [(&str, &str); 7] = [
    ("Gradski bicikl sa korpom", "sr-Latn"),
    ("Шешир од сламе", "sr-Cyrl"),
    ("Dečji šešir", "sr"),
    ("Ђорђева чинија", "sr-Cyrl"),
    ("Горный велосипед 27,5 дюйма", "ru"),
    ("Ёлочные игрушки", "ru"),
    ("City bicycle with basket", "en"),
];

/// Each query, and the indices of the listings that it must find first.
const QUESTIONS: [(&str, &[usize]); 14] = [
    // A query in one script finds titles in both.
    ("бицикл", &[0]),
    ("шешир", &[1, 2]),
    ("šešir", &[1, 2]),
    ("ŠEŠIRI", &[1, 2]),
    ("дечји шешир", &[2]),
    ("đorđeva", &[3]),
    // Other grammatical cases and numbers; without diacritics where the listing is declared as Serbian.
    ("bicikli", &[0]),
    ("бицикла", &[0]),
    ("sesir", &[1, 2]),
    ("djordjeva cinija", &[3]),
    ("велосипеды", &[4]),
    ("елочных игрушек", &[5]),
    // English is stemmed too.
    ("bicycles", &[6]),
    ("basket for a bicycle", &[6]),
];

#[tokio::test]
async fn words_are_found_in_either_script_and_in_any_case() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let mut ids = Vec::new();
    for (title, language) in LISTINGS {
        let plain = a_listing().titled(title).with("language", language).with("description", "").with("tags", [""; 0].to_vec());
        ids.push(ada.publishes(plain.with("category", serde_json::Value::Null)).await?.id.to_string());
    }
    market.settle().await?;
    market.opensearch.refresh().await?;

    for (words, expected) in QUESTIONS {
        let encoded = Url::parse_with_params("http://query-api", [("q", words)])?;
        let found = ada.asks(&format!("/api/v1/search?{}", encoded.query().unwrap_or_default())).await?.expect(200)?;
        let found_ids = found.item_ids()?;
        let first = found_ids.iter().take(expected.len());
        for &listing in expected {
            assert!(first.clone().any(|id| *id == ids[listing]), "{words} does not find {} first: {found}", LISTINGS[listing].0);
        }
    }

    let shown = ada.asks("/api/v1/search?q=%D1%88%D0%B5%D1%88%D0%B8%D1%80&highlight=1").await?.expect(200)?.value()?;
    let highlights: Vec<&str> =
        shown["items"].as_array().into_iter().flatten().filter_map(|item| item["highlight"]["title"][0].as_str()).collect();
    assert!(highlights.contains(&"Dečji <em>šešir</em>") && highlights.contains(&"<em>Шешир</em> од сламе"), "{shown}");
    market.stop().await
}
