//! Responses: JSON bodies with the headers for caches, staleness and the next page.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, LINK, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use service::http::{ETag as EntityTag, IfNoneMatch};
use service::problem::Problem;

use crate::consistency::Freshness;
use crate::stored_aggregate::ShownAggregate;
use crate::visibility::Audience;

/// Capacity for the headers of a response, including those that middleware adds.
const HEADERS: usize = 8;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const STALE: HeaderName = HeaderName::from_static("stale");

/// A problem that no cache may store, because it depends on the caller and on the moment.
#[derive(Debug)]
pub struct UncacheableProblem(Problem);

impl<E> From<E> for UncacheableProblem
where
    Problem: From<E>,
{
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for UncacheableProblem {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        describe(response.headers_mut(), Audience::Viewer, Freshness::Fresh);
        response
    }
}

/// A JSON body for its audience.
pub fn json(body: Bytes, audience: Audience, freshness: Freshness) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(CONTENT_TYPE, JSON);
    describe(headers, audience, freshness);
    response
}

/// One aggregate with its version as `ETag`, or 304 if the caller has this version.
pub fn aggregate(shown: ShownAggregate, known: Option<&IfNoneMatch>) -> Response {
    let ShownAggregate { version, body, audience, freshness } = shown;
    let etag = EntityTag::of(version);
    let mut response = if known.is_some_and(|known| known.has(&etag)) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        describe(response.headers_mut(), audience, freshness);
        response
    } else {
        json(body, audience, freshness)
    };
    response.headers_mut().insert(ETAG, etag.header());
    response
}

/// Shared caches may store what everyone may see, but must revalidate it for each request.
fn describe(headers: &mut HeaderMap, audience: Audience, freshness: Freshness) {
    headers.insert(
        CACHE_CONTROL,
        match audience {
            Audience::Everyone => HeaderValue::from_static("public, no-cache"),
            Audience::Viewer => HeaderValue::from_static("private, no-store"),
        },
    );
    headers.insert(VARY, HeaderValue::from_name(AUTHORIZATION));
    if freshness == Freshness::Stale {
        headers.insert(STALE, HeaderValue::from_static("?1"));
    }
}

/// Adds `Link: <…>; rel="next"`: the requested address with the cursor of the next page.
pub fn link_next_page(headers: &mut HeaderMap, requested: &Uri, next_cursor: Option<&str>) {
    let Some(cursor) = next_cursor else { return };
    let is_cursor = |pair: &str| pair == "cursor" || pair.starts_with("cursor=");
    let others = requested.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !is_cursor(pair));
    let query: String = others.flat_map(|pair| [pair, "&"]).collect();
    let link = format!("<{}?{query}cursor={cursor}>; rel=\"next\"", requested.path());
    if let Ok(link) = HeaderValue::from_str(&link) {
        headers.insert(LINK, link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link_of(requested: &str, cursor: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        link_next_page(&mut headers, &requested.parse().unwrap(), cursor);
        headers.get(LINK).map(|link| link.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_next_page_asks_the_same_with_the_new_cursor() {
        assert_eq!(
            link_of("/api/v1/search?q=a&cursor=old", Some("new")).unwrap(),
            "</api/v1/search?q=a&cursor=new>; rel=\"next\""
        );
        assert_eq!(link_of("/api/v1/search", Some("new")).unwrap(), "</api/v1/search?cursor=new>; rel=\"next\"");
        assert_eq!(link_of("/api/v1/search?q=a", None), None);
    }
}
