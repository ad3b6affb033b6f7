//! Pagination: the pages together contain every item exactly once, in the order of a single long page, even if sort values are
//! equal.

use acceptance::{Dependency, Marketplace, Name, Person, a_listing};
use serde_json::Value;

/// Reads one page; returns its ids and the path of the next page.
async fn page(person: &Person<'_>, path: &str) -> anyhow::Result<(Vec<String>, Option<String>)> {
    let answer = person.asks(path).await?.expect(200)?;
    let body = answer.value()?;
    let ids = answer.item_ids()?;
    let linked = answer.header("link").map(|link| {
        let end = link.find(">; rel=\"next\"").unwrap_or_default();
        link.get(1..end).unwrap_or_default().to_owned()
    });
    let Some(cursor) = body["next_cursor"].as_str() else {
        assert_eq!((body["next_cursor"].clone(), &linked), (Value::Null, &None), "{path}");
        return Ok((ids, None));
    };
    assert!(
        linked.as_ref().is_some_and(|link| link.ends_with(&format!("cursor={cursor}"))),
        "the Link header {linked:?} does not end with the cursor {cursor}"
    );
    Ok((ids, linked))
}

/// Reads all pages; returns all ids.
async fn walk(person: &Person<'_>, question: &str, limit: usize) -> anyhow::Result<Vec<String>> {
    let (mut all, mut next) = (Vec::new(), Some(format!("{question}&limit={limit}")));
    while let Some(path) = next.take() {
        let (ids, following) = page(person, &path).await?;
        assert!(ids.len() <= limit && (ids.len() == limit || following.is_none()), "{path} has {} items", ids.len());
        all.extend(ids);
        next = following;
    }
    Ok(all)
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() -> anyhow::Result<()> {
    const LISTINGS: usize = 23;
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    for n in 0..LISTINGS {
        let title = ["Lamp", "lamp", "Žuta lamp"][n % 3].to_owned();
        let amount = ["10.00", "10", "10.50", "9.99"][n % 4];
        ada.publishes(a_listing().titled(&title).priced(amount, "RSD")).await?;
    }
    market.settle().await?;

    let lists = ["-created_at", "price", "-price", "title"].map(|sort| format!("/api/v1/listings?sort={sort}"));
    let searches = ["sort=-created_at", "sort=price", "sort=-price", "q=lamp", "sort=distance&near=45,19"]
        .map(|question| format!("/api/v1/listings/search?{question}"));
    for question in lists.iter().chain(&searches) {
        let (whole, next) = page(&ada, &format!("{question}&limit=100")).await?;
        assert_eq!((whole.len(), next), (LISTINGS, None), "{question}");
        for limit in [1, 4, 23] {
            assert_eq!(walk(&ada, question, limit).await?, whole, "{question} by {limit}");
        }
    }
    market.link(Name::QueryApi, 0, Dependency::OpenSearch)?.cut().await?;
    for question in &searches {
        // Another limit than above, because a cached answer of OpenSearch would have another order.
        let (whole, next) = page(&ada, &format!("{question}&limit=99")).await?;
        assert_eq!((whole.len(), next), (LISTINGS, None), "{question} from Postgres");
        assert_eq!(walk(&ada, question, 5).await?, whole, "{question} from Postgres");
    }
    market.link(Name::QueryApi, 0, Dependency::OpenSearch)?.mend().await?;
    market.stop().await
}

#[tokio::test]
async fn what_is_written_between_pages_moves_nothing_on_them() -> anyhow::Result<()> {
    const LISTINGS: usize = 12;
    const LIMIT: usize = 3;
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let mut published = Vec::new();
    for n in 0..LISTINGS {
        published.push(ada.publishes(a_listing().priced(&format!("{}.00", 10 + n), "RSD")).await?);
    }
    market.settle().await?;
    let expected: Vec<String> = published.iter().map(|listing| listing.id.to_string()).collect();

    let question = format!("/api/v1/listings/search?sort=price&limit={LIMIT}");
    let (mut seen, next) = page(&ada, &question).await?;
    // The second page opens a point-in-time view of the index, which the following pages use.
    let (second, next) = page(&ada, &next.unwrap()).await?;
    seen.extend(second);

    // Of the items on later pages one moves to the front and one is deleted; another is inserted between them.
    ada.changes(published[7], serde_json::json!({ "price": { "amount": "1.00", "currency": "RSD" } })).await?;
    ada.deletes(published[8]).await?;
    ada.publishes(a_listing().priced("19.50", "RSD")).await?;
    market.settle().await?;

    let mut next = next;
    while let Some(path) = next {
        let (ids, following) = page(&ada, &path).await?;
        seen.extend(ids);
        next = following;
    }
    assert_eq!(seen, expected);
    // A new first page shows the changes.
    let (anew, _) = page(&ada, "/api/v1/listings/search?sort=price&limit=100").await?;
    assert_eq!((anew.len(), &anew[0]), (LISTINGS, &expected[7]));
    market.stop().await
}
