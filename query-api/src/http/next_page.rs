//! `Link: <…>; rel="next"`: where a page goes on.

use http::header::LINK;
use http::{HeaderMap, HeaderValue, Uri};

/// Adds the address of the next page: the same question with the new cursor.
pub fn link(headers: &mut HeaderMap, asked: &Uri, next_cursor: Option<&str>) {
    let Some(cursor) = next_cursor else { return };
    let others = asked.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !is_cursor(pair));
    let query: String = others.flat_map(|pair| [pair, "&"]).collect();
    let link = format!("<{}?{query}cursor={cursor}>; rel=\"next\"", asked.path());
    if let Ok(link) = HeaderValue::from_str(&link) {
        headers.insert(LINK, link);
    }
}

fn is_cursor(pair: &str) -> bool {
    pair == "cursor" || pair.starts_with("cursor=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link_of(asked: &str, cursor: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        link(&mut headers, &asked.parse().unwrap(), cursor);
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
