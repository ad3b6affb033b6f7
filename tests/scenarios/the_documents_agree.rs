//! The served OpenAPI documents equal the files in `docs/openapi`, and every route answers as documented.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use acceptance::{Answer, Marketplace, Person, Program, a_listing};
use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// If this variable is `1`, the test writes the files in `docs/openapi` instead of comparing them.
const UPDATE: &str = "UPDATE_OPENAPI";
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// A request that is answered with success, for one operation of a document.
struct Example {
    to_queries: bool,
    verb: &'static str,
    /// Path template, as in the document.
    route: &'static str,
    /// Path and query of the request.
    path: String,
    body: Option<(&'static str, Value)>,
}

impl Example {
    fn reads(route: &'static str, path: impl Into<String>) -> Self {
        Self { to_queries: true, verb: "get", route, path: path.into(), body: None }
    }

    fn writes(verb: &'static str, route: &'static str, id: Uuid) -> Self {
        Self { to_queries: false, verb, route, path: route.replace("{id}", &id.to_string()), body: None }
    }

    fn with(self, body: Value) -> Self {
        self.with_type("application/json", body)
    }

    fn with_type(self, content_type: &'static str, body: Value) -> Self {
        Self { body: Some((content_type, body)), ..self }
    }

    /// Returns one example of every operation of both documents, in an order in which each of them succeeds.
    fn all(listing: &events::Listing) -> Vec<Self> {
        let (id, variant) = (listing.id.into(), listing.variants[0].id.into());
        let nobody = Uuid::nil();
        vec![
            Self::reads("/api/v1/listings/{id}", format!("/api/v1/listings/{id}")),
            Self::reads("/api/v1/listings", "/api/v1/listings?limit=2"),
            Self::reads("/api/v1/listings/search", "/api/v1/listings/search?q=bicycle&facets=brand,price&highlight=1"),
            Self::reads("/api/v1/search", "/api/v1/search?q=bicycle"),
            Self::reads("/api/v1/variants/{id}/stock", format!("/api/v1/variants/{variant}/stock")),
            Self::writes("post", "/api/v1/listings", nobody).with(a_listing().0),
            Self::writes("post", "/api/v1/listings/batch", nobody).with_type("application/x-ndjson", a_listing().0),
            Self::writes("put", "/api/v1/listings/{id}", id).with(a_listing().titled("Replaced").0),
            Self::writes("patch", "/api/v1/listings/{id}", id).with(json!({ "title": "Patched" })),
            Self::writes("put", "/api/v1/variants/{id}/stock", variant).with(json!({ "on_hand": 5 })),
            Self::writes("post", "/api/v1/variants/{id}/movements", variant).with(json!({ "type": "out", "quantity": 1 })),
            Self::writes("post", "/api/v1/listings/{id}/pause", id),
            Self::writes("post", "/api/v1/listings/{id}/publish", id),
            Self::writes("post", "/api/v1/listings/{id}/archive", id),
            Self::writes("delete", "/api/v1/listings/{id}", id),
        ]
    }

    /// Sends the request.
    async fn send(&self, by: &Person<'_>) -> anyhow::Result<Answer> {
        let method: Method = self.verb.to_uppercase().parse()?;
        let request = if self.to_queries { by.query(&self.path)? } else { by.command(method, &self.path)?.if_match("*") };
        match &self.body {
            Some((content_type, body)) => request.body(content_type, body.to_string()),
            None => request,
        }
        .send()
        .await
    }

    /// Returns variants of the request that must be refused: an unknown id, a malformed id, and a malformed body.
    fn invalid_variants(&self) -> impl Iterator<Item = Self> {
        let with_path = |path| Self { path, body: self.body.clone(), ..*self };
        let with = |id: &str| with_path(self.route.replace("{id}", id));
        let malformed = || with_path(self.path.clone()).with(Value::String("malformed".to_owned()));
        let has_id = self.route.contains("{id}");
        [has_id.then(|| with(&Uuid::now_v7().to_string())), has_id.then(|| with("7")), self.body.is_some().then(malformed)]
            .into_iter()
            .flatten()
    }
}

/// Iterates over the members of a JSON object.
fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// Iterates over verb, path and operation of a document.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let verbs = |item| fields(item).filter(|(verb, _)| METHODS.contains(&verb.as_str()));
    fields(&document["paths"])
        .flat_map(move |(path, item)| verbs(item).map(move |(verb, operation)| (verb.as_str(), path.as_str(), operation)))
}

/// Checks the parts of a document that readers and client generators rely on.
fn check(document: &Value) -> anyhow::Result<()> {
    ensure!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")), "not OpenAPI 3.1");
    ensure!(document["info"]["title"].is_string() && document["info"]["version"].is_string(), "no title or version");
    let mut ids = BTreeSet::new();
    for (verb, path, operation) in operations(document) {
        let at = format!("{verb} {path}");
        let id = operation["operationId"].as_str().with_context(|| format!("{at}: no operationId"))?;
        ensure!(ids.insert(id), "{at}: the operationId {id} is not unique");
        ensure!(
            operation["summary"].is_string() || operation["description"].is_string(),
            "{at}: neither summary nor description"
        );
        let problem = |response: &Value| response["content"]["application/problem+json"]["schema"].is_object();
        for (status, response) in fields(&operation["responses"]) {
            ensure!(response["description"].is_string(), "{at}: {status} has no description");
            ensure!(problem(response) || !status.starts_with(['4', '5']), "{at}: {status} is not documented as a problem");
        }
        let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        for parameter in parameters {
            ensure!(parameter["name"].is_string() && parameter["schema"].is_object(), "{at}: {parameter}");
        }
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let declared =
                |parameter: &Value| parameter["in"] == "path" && parameter["name"] == name && parameter["required"] == true;
            ensure!(parameters.iter().any(declared), "{at}: the path parameter {{{name}}} is not declared");
        }
        for security in operation["security"].as_array().or(document["security"].as_array()).into_iter().flatten() {
            for (scheme, _) in fields(security) {
                ensure!(
                    document["components"]["securitySchemes"][scheme].is_object(),
                    "{at}: the security scheme {scheme} is missing"
                );
            }
        }
    }
    Ok(())
}

/// Checks that the operation documents the status, and that the body matches the schema of that status.
fn check_answer(document: &Value, operation: &Value, answer: &Answer) -> anyhow::Result<()> {
    let responses = &operation["responses"];
    let response = responses.get(answer.status.as_str()).or_else(|| responses.get("default"));
    let response = response.with_context(|| format!("the status is not documented: {answer}"))?;
    if answer.body.is_empty() {
        ensure!(response["content"].is_null(), "a body is documented, but missing: {answer}");
        return Ok(());
    }
    let content_type = answer.header("content-type").and_then(|of| of.split(';').next()).unwrap_or_default();
    let schema = &response["content"][content_type]["schema"];
    ensure!(schema.is_object(), "the content type {content_type} is not documented: {answer}");
    if content_type == "application/x-ndjson" {
        return Ok(());
    }
    // References are relative to the root of the document.
    let schema = json!({ "components": document["components"], "allOf": [schema] });
    let validator = jsonschema::draft202012::new(&schema)?;
    let value = answer.value()?;
    let faults: Vec<String> = validator.iter_errors(&value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
    ensure!(faults.is_empty(), "{answer}\nis not as documented: {}", faults.join("\n"));
    Ok(())
}

/// Reads a program's document, checks it, and compares it with the file.
async fn served(program: &Program, name: &str) -> anyhow::Result<Value> {
    let served: Value = reqwest::get(program.url("/openapi.json")?).await?.error_for_status()?.json().await?;
    check(&served).with_context(|| format!("the document of {name}"))?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi").join(format!("{name}.json"));
    let text = format!("{}\n", serde_json::to_string_pretty(&served)?);
    if env::var(UPDATE).is_ok_and(|update| update == "1") {
        fs::write(&file, &text)?;
    }
    let stored = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    ensure!(
        stored == text,
        "docs/openapi/{name}.json differs from the served document; run the test with {UPDATE}=1 to write it"
    );
    Ok(served)
}

#[tokio::test]
async fn the_openapi_documents_are_kept_and_every_route_answers_as_documented() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let commands = served(market.command_api()?, "command-api").await?;
    let queries = served(market.query_api()?, "query-api").await?;
    let ada = market.seller("ada")?;
    let listing: events::Listing = ada.creates(&a_listing().with_stock(3)).await?.expect(201)?.json()?;
    ada.publishes(a_listing()).await?;
    market.settle().await?;

    let mut left: BTreeSet<(&str, &str)> = [&commands, &queries]
        .into_iter()
        .flat_map(operations)
        .map(|(verb, route, _)| (verb, route))
        .filter(|(_, route)| route.starts_with("/api/"))
        .collect();
    for example in Example::all(&listing) {
        let document = if example.to_queries { &queries } else { &commands };
        let operation = &document["paths"][example.route][example.verb];
        ensure!(left.remove(&(example.verb, example.route)), "not documented: {} {}", example.verb, example.route);
        let answer = example.send(&ada).await?;
        ensure!(answer.status.is_success(), "the example failed: {answer}");
        check_answer(document, operation, &answer)?;

        check_answer(document, operation, &example.send(&ada.with_token(Some("malformed"))).await?)?;
        for invalid in example.invalid_variants() {
            let answer = invalid.send(&ada).await?;
            ensure!(answer.status.is_client_error(), "an invalid request was not refused: {answer}");
            check_answer(document, operation, &answer)?;
        }
    }
    ensure!(left.is_empty(), "operations without an example: {left:?}");
    market.stop().await
}
