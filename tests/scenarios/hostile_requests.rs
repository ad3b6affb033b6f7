//! Whatever is sent, the answer is a problem that says what is wrong with it, never a failure of ours; and text that looks like
//! a query stays text.

use acceptance::{Answer, Marketplace, Person, a_listing};
use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};

/// The largest body of a single command, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;
/// What means something to Postgres, to OpenSearch, to Redis or to a browser.
const FRAGMENTS: &[&str] = &[
    "Robert'); DROP TABLE command.listings;--",
    "1' OR '1'='1",
    "$1; select pg_sleep(10)",
    r#"{"query":{"match_all":{}}}"#,
    r#""}},{"match_all":{}}"#,
    "title:* AND _exists_:deleted",
    "brand:(+a -b) || ~2 ^5 /.*/",
    "a & b | !c <-> d:*",
    "\\' \\\\ %_ ?",
    "<script>alert(1)</script>",
    "${jndi:ldap://x} {{7*7}} %s%n",
    "*1\r\nflushall",
    "listings.events.> * .",
    "ＦＵＬＬ ｗｉｄｔｈ, 𝔣𝔯𝔞𝔨𝔱𝔲𝔯, ђурђевак, שלום, 🚲🧑‍🚀",
];

/// A refusal is a 4xx problem, with a trace to look it up by.
fn refused(answer: Answer, statuses: &[u16]) -> anyhow::Result<Answer> {
    ensure!(statuses.contains(&answer.status.as_u16()), "expected one of {statuses:?}: {answer}");
    let status = answer.status.as_u16();
    let problem = answer.value()?;
    let slug = problem["type"].as_str().and_then(|uri| uri.strip_prefix("/problems/")).context("no type")?.to_owned();
    ensure!(problem["trace_id"].as_str().is_some_and(|id| !id.is_empty()), "no trace_id: {answer}");
    answer.expect_problem(status, &slug)
}

/// The routes that take a JSON body, each with one that it accepts.
fn routes(listing: &events::Listing) -> Vec<(Method, String, Value)> {
    let (path, variant) = (format!("/api/v1/listings/{}", listing.id), format!("/api/v1/variants/{}", listing.variants[0].id));
    vec![
        (Method::POST, "/api/v1/listings".to_owned(), a_listing().with_stock(1).0),
        (Method::PUT, path.clone(), a_listing().0),
        (Method::PATCH, path, json!({ "title": "Changed" })),
        (Method::PUT, format!("{variant}/stock"), json!({ "on_hand": 5, "low_stock_threshold": 1, "reason": "count" })),
        (Method::POST, format!("{variant}/movements"), json!({ "type": "in", "quantity": 1, "reason": "r", "reference": "x" })),
    ]
}

async fn sends(person: &Person<'_>, method: &Method, path: &str, body: impl Into<Vec<u8>>) -> anyhow::Result<Answer> {
    let request = person.command(method.clone(), path)?.if_match("*");
    request.body("application/json", body.into()).send().await
}

#[tokio::test]
async fn hostile_bodies_are_refused_with_a_reason() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listing: events::Listing = ada.creates(&a_listing().with_stock(5)).await?.expect(201)?.json()?;

    for (method, path, accepted) in routes(&listing) {
        let accepted = serde_json::to_string(&accepted)?;
        let not_json: Vec<(&str, Vec<u8>)> = vec![
            ("nothing", Vec::new()),
            ("half", accepted.as_bytes()[..accepted.len() / 2].to_vec()),
            ("two", format!("{accepted}{accepted}").into_bytes()),
            ("deep arrays", "[".repeat(200_000).into_bytes()),
            ("deep objects", r#"{"attributes":"#.repeat(50_000).into_bytes()),
            ("deep and closed", format!(r#"{{"title":{}1{}}}"#, "[".repeat(20_000), "]".repeat(20_000)).into_bytes()),
            ("a raw NUL", accepted.replacen(':', ":\0", 1).into_bytes()),
            ("invalid UTF-8", [&accepted.as_bytes()[..2], b"\xff\xfe", &accepted.as_bytes()[2..]].concat()),
            ("UTF-16", accepted.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("a lone surrogate", format!(r#"{{"\ud800":1,{}"#, &accepted[1..]).into_bytes()),
            ("NaN", br#"{"quantity":NaN,"on_hand":NaN,"title":NaN}"#.to_vec()),
        ];
        for (name, body) in not_json {
            // Too deep is not malformed by everyone's book, but it is refused.
            let statuses: &[u16] = if name.starts_with("deep") { &[400, 422] } else { &[400] };
            refused(sends(&ada, &method, &path, body).await?, statuses).with_context(|| format!("{method} {path}: {name}"))?;
        }
        for (name, body) in [("null", "null"), ("array", "[]"), ("number", "1"), ("text", "\"x\""), ("bool", "true")] {
            let answer = sends(&ada, &method, &path, body).await?;
            refused(answer, &[400, 422]).with_context(|| format!("{method} {path}: {name}"))?;
        }
        // The limit is the limit: this many bytes are read, one more is not.
        let full = format!("{accepted}{}", " ".repeat(BODY_LIMIT - accepted.len()));
        let answer = sends(&ada, &method, &path, full.clone()).await?;
        ensure!(answer.status.is_success(), "1 MiB is allowed: {} {}", answer.asked, answer.status);
        refused(sends(&ada, &method, &path, format!("{full} ")).await?, &[413])?;
        let pieces = futures_util::stream::iter([full.into_bytes(), b" ".to_vec()].map(anyhow::Ok));
        let request = ada.command(method.clone(), &path)?.if_match("*");
        let without_length = request.body("application/json", reqwest::Body::wrap_stream(pieces)).send().await?;
        refused(without_length, &[413])?;
        // What it is must be said.
        for content_type in ["text/plain", "application/xml", "application/x-www-form-urlencoded", "json", ";"] {
            let request = ada.command(method.clone(), &path)?.if_match("*");
            refused(request.body(content_type, accepted.clone()).send().await?, &[415])?;
        }

        let accepted: Value = serde_json::from_str(&accepted)?;
        for field in accepted.as_object().into_iter().flat_map(serde_json::Map::keys) {
            for wrong in [json!(true), json!({ "a": 1 }), json!([[1]])] {
                let mut body = accepted.clone();
                body[field] = wrong;
                let answer = refused(sends(&ada, &method, &path, body.to_string()).await?, &[422])?;
                let pointer = answer.value()?["errors"][0]["pointer"].as_str().unwrap_or_default().to_owned();
                ensure!(
                    pointer == format!("/{field}") || pointer.starts_with(&format!("/{field}/")),
                    "{field} at {pointer}: {answer}"
                );
            }
        }
        let mut unknown = accepted.clone();
        unknown["admin"] = json!(true);
        unknown["__proto__"] = json!({});
        let answer = refused(sends(&ada, &method, &path, unknown.to_string()).await?, &[422])?;
        ensure!(answer.value()?["errors"].as_array().is_some_and(|errors| errors.len() == 2), "both unknown fields: {answer}");
    }
    market.stop().await
}

#[tokio::test]
async fn values_that_break_a_rule_are_all_named_at_once() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let long = |length: usize| json!("x".repeat(length));
    let wrong: Vec<(&str, Value, &str)> = vec![
        ("title", json!(""), "/title"),
        ("title", long(301), "/title"),
        ("title", json!("a\u{0}b"), "/title"),
        ("title", json!("a\u{1b}[31m"), "/title"),
        ("description", long(20_001), "/description"),
        ("description", json!("a\u{0}"), "/description"),
        ("price", json!({ "amount": "1e400", "currency": "RSD" }), "/price"),
        ("price", json!({ "amount": "-1", "currency": "RSD" }), "/price"),
        ("price", json!({ "amount": "0.001", "currency": "RSD" }), "/price"),
        ("price", json!({ "amount": "1000000000000", "currency": "RSD" }), "/price"),
        ("price", json!({ "amount": "9".repeat(100_000), "currency": "RSD" }), "/price"),
        ("price", json!({ "amount": 129.99, "currency": "RSD" }), "/price"),
        ("price", json!({ "amount": "1", "currency": "ZZZ" }), "/price"),
        ("price", json!({ "amount": "1", "currency": "RSD", "rate": 2 }), "/price"),
        ("price", Value::Null, "/price"),
        ("condition", json!("broken"), "/condition"),
        ("status", json!("sold"), "/status"),
        ("visibility", json!("secret"), "/visibility"),
        ("tags", json!(vec!["t"; 31]), "/tags"),
        ("tags", json!([""]), "/tags"),
        ("attributes", json!([{ "name": "", "value": "x" }]), "/attributes"),
        ("attributes", json!([{ "name": "x".repeat(101), "value": "x" }]), "/attributes"),
        ("attributes", json!([{ "name": "a\u{0}", "value": "x" }]), "/attributes"),
        ("attributes", json!(vec![json!({ "name": "n", "value": "v" }); 201]), "/attributes"),
        ("location", json!({ "point": { "lat": 91, "lon": 0 } }), "/location"),
        ("location", json!({ "point": { "lat": 0, "lon": -181 } }), "/location"),
        ("location", json!({ "country": "Serbia" }), "/location"),
        ("images", json!([{ "url": "javascript:alert(1)" }]), "/images"),
        ("images", json!([{ "url": "file:///etc/passwd" }]), "/images"),
        ("images", json!([{ "url": format!("https://example.com/{}", "x".repeat(2048)) }]), "/images"),
        ("variants", json!([]), "/variants"),
        ("variants", json!(vec![json!({ "sku": null }); 201]), "/variants"),
        ("stock", json!(-1), "/stock"),
        ("stock", json!(1.5), "/stock"),
        ("stock", json!(1_000_000_001_i64), "/stock"),
        ("external_id", json!(""), "/external_id"),
        ("external_id", json!("a\u{0}b"), "/external_id"),
        ("seller_id", json!("ada"), "/seller_id"),
        ("id", json!("0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b"), "/id"),
        ("version", json!(7), "/version"),
        ("available", json!(true), "/available"),
    ];
    for (field, value, at) in wrong {
        let answer = refused(ada.creates(&a_listing().with(field, value)).await?, &[422])?;
        let errors = answer.value()?["errors"].take();
        let pointers: Vec<&str> = errors.as_array().into_iter().flatten().filter_map(|error| error["pointer"].as_str()).collect();
        ensure!(!pointers.is_empty() && pointers.iter().all(|pointer| pointer.starts_with(at)), "{field}: {answer}");
    }
    // Numbers that no type holds, written as numbers.
    for number in ["1e400", "-1e400", "123456789012345678901234567890", "0.1", "-0.0", "1E1000000000"] {
        let body = format!(r#"{{"title":"x","price":{{"amount":"1","currency":"RSD"}},"stock":{number}}}"#);
        let statuses: &[u16] = if number == "-0.0" { &[422, 201] } else { &[400, 422] };
        let answer = sends(&ada, &Method::POST, "/api/v1/listings", body).await?;
        ensure!(statuses.contains(&answer.status.as_u16()), "{number}: {answer}");
    }
    // All faults of a body come in one answer.
    let draft = a_listing().titled("").with("condition", "broken").with("tags", json!([""])).with("colour", "red");
    let answer = refused(ada.creates(&draft).await?, &[422])?;
    ensure!(answer.value()?["errors"].as_array().is_some_and(|errors| errors.len() >= 3), "{answer}");
    // None of it was stored.
    ensure!(
        market.journal().await?.iter().all(|entry| entry.body["state"]["title"] == "x" || entry.key.kind.name() != "listing")
    );
    market.stop().await
}

#[tokio::test]
async fn a_batch_refuses_its_bad_lines_alone() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let good = |name: &str| a_listing().titled(name).with("external_id", name).0.to_string();
    let lines: Vec<(Vec<u8>, u64)> = vec![
        (good("first").into_bytes(), 201),
        ("[".repeat(100_000).into_bytes(), 400),
        (b"{\"title\":\"\xff\"}".to_vec(), 400),
        (b"{\"title\":\"a\\u0000b\"}".to_vec(), 422),
        (br#"{"title":"x","price":{"amount":"1","currency":"RSD"},"colour":1}"#.to_vec(), 422),
        (b"null".to_vec(), 422),
        (good("last").into_bytes(), 201),
        (good("first").into_bytes(), 200),
        (a_listing().with("description", " ".repeat(BODY_LIMIT)).0.to_string().into_bytes(), 413),
    ];
    let body: Vec<u8> = lines.iter().flat_map(|(line, _)| [line.as_slice(), b"\n\r\n"].concat()).collect();
    let request = ada.command(Method::POST, "/api/v1/listings/batch")?.body("application/x-ndjson", body);
    let answer = request.send().await?.expect(200)?;
    let results: Vec<Value> = answer.body.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(results.len(), lines.len());
    for (index, (result, (_, status))) in results.iter().zip(&lines).enumerate() {
        assert_eq!(result["index"], index);
        let told = result["status"].as_u64().unwrap_or_default();
        assert!(told == *status || *status == 422 && told == 400, "line {index}: {result}");
        assert_eq!(result["problem"].is_object(), *status >= 400, "line {index}: {result}");
    }
    for (content_type, body, status) in [
        ("application/json", good("x"), 415),
        ("application/x-ndjson", format!("{}\n", good("x")).repeat(1001), 413),
        ("application/x-ndjson", " ".repeat(16 * BODY_LIMIT + 1), 413),
    ] {
        let answer = ada.command(Method::POST, "/api/v1/listings/batch")?.body(content_type, body).send().await?;
        refused(answer, &[status, 422])?;
    }
    market.settle().await?;
    assert_eq!(market.found_by("/api/v1/listings", &[]).await?.len(), 2);
    market.stop().await
}

#[tokio::test]
async fn a_command_is_refused_before_it_is_done_or_not_at_all() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listing = a_listing().with("external_id", "one").0;
    let dry = ada.command(Method::POST, "/api/v1/listings?dry_run=true")?.json(&listing).send().await?;
    dry.expect_problem(400, "malformed")?;
    // How the answer may be packed is seen when all is done.
    let picky = ada.command(Method::POST, "/api/v1/listings")?.header("accept-encoding", "identity;q=0").json(&listing);
    picky.send().await?.expect(201)?;
    market.stop().await
}

#[tokio::test]
async fn text_that_looks_like_a_query_stays_text() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let printable = |fragment: &str| fragment.replace('\r', "");
    let mut listings = Vec::new();
    for (nth, fragment) in FRAGMENTS.iter().enumerate() {
        let text = printable(fragment).replace('\n', " ");
        let draft = a_listing()
            .titled(&format!("{text} number{nth}"))
            .with("description", printable(fragment))
            .with("brand", text.clone())
            .with("tags", json!([text]))
            .with("external_id", text.clone())
            .with("attributes", json!([{ "name": "note", "value": text }]));
        listings.push((ada.publishes(draft).await?, text, nth));
    }
    market.settle().await?;
    for (listing, text, nth) in &listings {
        let shown = market.shows(*listing).await?;
        assert_eq!((shown.title, shown.brand.as_ref()), (format!("{text} number{nth}"), Some(text)));
        for path in ["/api/v1/listings", "/api/v1/listings/search"] {
            for filter in ["brand", "tag"] {
                assert_eq!(market.found_by(path, &[(filter, text)]).await?, [listing.id], "{path} {filter}={text}");
            }
        }
        assert_eq!(market.found_by("/api/v1/listings/search", &[("attr.note", text)]).await?, [listing.id], "attr.note={text}");
        assert_eq!(market.finds(&format!("{text} number{nth}")).await?.first(), Some(&listing.id), "q={text}");
    }
    // As a filter that names nothing, it finds nothing.
    for fragment in FRAGMENTS.iter().filter(|fragment| !fragment.contains('\n')) {
        let other = format!("{fragment}?");
        for filter in ["brand", "tag", "category"] {
            for path in ["/api/v1/listings", "/api/v1/listings/search"] {
                assert_eq!(market.found_by(path, &[(filter, &other)]).await?, [], "{path} {filter}={other}");
            }
        }
    }
    market.stop().await
}

#[tokio::test]
async fn hostile_parameters_and_headers_are_malformed() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let lamp = ada.publishes(a_listing().titled("Lamp").with_stock(1)).await?;
    market.settle().await?;
    let visitor = market.visitor()?;
    let encoded = |text: &str| text.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02x}"));

    let (list, search) = ("/api/v1/listings", "/api/v1/listings/search");
    let typed =
        ["status", "condition", "currency", "price_min", "price_max", "available", "seller_id", "sort", "cursor", "limit"];
    let of_search = ["near=45,20&radius", "near", "bbox", "facets", "highlight"];
    let fragments = FRAGMENTS.iter().copied().chain(["-1", "1e400", "NaN", "\u{0}", "\u{feff}", "active\n"]);
    for fragment in fragments {
        for path in [list, search] {
            for parameter in typed {
                let asked = format!("{path}?{parameter}={}", encoded(fragment));
                refused(visitor.asks(&asked).await?, &[400]).with_context(|| format!("{parameter}={fragment:?}"))?;
            }
        }
        for parameter in of_search {
            let asked = format!("{search}?{parameter}={}", encoded(fragment));
            refused(visitor.asks(&asked).await?, &[400]).with_context(|| format!("{parameter}={fragment:?}"))?;
        }
        for path in [format!("/api/v1/listings/x{}", encoded(fragment)), format!("/api/v1/variants/x{}/stock", encoded(fragment))]
        {
            refused(visitor.asks(&path).await?, &[400, 404])?;
        }
    }
    // NUL and broken UTF-8 in any parameter, known or not.
    for parameter in ["q", "brand", "category", "tag", "attr.color", "q%00", "unknown", "attr.%00"] {
        for value in ["%00", "lamp%00", "%ff", "%c3%28", "%ed%a0%80"] {
            refused(visitor.asks(&format!("{search}?{parameter}={value}")).await?, &[400])?;
        }
    }
    for asked in [
        format!("{list}?unknown=1"),
        format!("{list}?q=lamp"),
        format!("{list}?limit=0"),
        format!("{list}?limit=101"),
        format!("{list}?sort=relevance"),
        format!("{search}?limit=1&limit=2"),
        format!("{search}?radius=10km"),
        format!("{search}?near=45,20&radius=-1km"),
        format!("{search}?near=45,20&radius=1e400km"),
        format!("{search}?near=91,20&radius=1km"),
        format!("{search}?sort=distance"),
        format!("{search}?bbox=1,2,3"),
        format!("{search}?facets=description"),
        format!("{search}?facets=brand.whole"),
        format!("{search}?sort=_score"),
        format!("{search}?sort=title.keyword"),
        format!("{search}?highlight=%3Cb%3E"),
        format!("{search}?cursor={}", "A".repeat(10_000)),
    ] {
        refused(visitor.asks(&asked).await?, &[400]).with_context(|| asked.clone())?;
    }
    // Long, odd, and yet a search.
    for q in ["a".repeat(4000), "lamp ".repeat(700), "\"".repeat(500), "(".repeat(500), "*".repeat(500), "~".repeat(500)] {
        let answer = visitor.asks(&format!("{search}?q={}", encoded(&q))).await?;
        ensure!(matches!(answer.status.as_u16(), 200 | 400), "{}", answer.status);
    }

    // Headers.
    let path = format!("{list}/{}", lamp.id);
    for token in ["x", "%%%", "e30", &"A".repeat(5000)] {
        refused(visitor.query(&path)?.header("Consistency-Token", token).send().await?, &[400])?;
    }
    for (name, value) in [
        ("Prefer", "wait=-1, ;;;=,"),
        ("traceparent", "00-zz-zz-zz"),
        ("traceparent", &"0".repeat(3000)),
        ("X-Request-Id", "a b <script>"),
        ("X-Request-Id", &"x".repeat(3000)),
        ("If-None-Match", "W/\"\"\"\", nonsense"),
        ("Accept", "nothing/*;q=9"),
        ("Accept-Encoding", "gzip;q=x"),
    ] {
        let answer = visitor.query(&path)?.header(name, value).send().await?;
        ensure!(matches!(answer.status.as_u16(), 200 | 400), "{name}: {answer}");
    }
    for authorization in
        ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a.b.c", "Bearer é", &format!("Bearer {}", "a".repeat(6000))]
    {
        let answer = visitor.query(&path)?.header("Authorization", authorization).send().await?;
        refused(answer, &[401]).with_context(|| format!("Authorization: {authorization:?}"))?;
    }
    // Routes and methods that are none.
    for path in ["/", "/api/v1", "/api/v2/listings", "/api/v1/listings/", "/api/v1/listings/../../etc/passwd", "/api/v1/%2e%2e/x"]
    {
        refused(visitor.asks(path).await?, &[404])?;
        refused(ada.command(Method::GET, path)?.send().await?, &[404])?;
    }
    refused(ada.command(Method::DELETE, "/api/v1/listings")?.send().await?, &[405])?;
    refused(ada.command(Method::TRACE, &path)?.send().await?, &[405])?;
    market.stop().await
}
