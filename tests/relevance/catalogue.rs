//! Loads the Icecat catalogue as listings, and writes it into the index.

use std::path::{Path, PathBuf};
use std::process::Command;

use acceptance::Marketplace;
use anyhow::Context as _;
use events::Listing;
use serde_json::{Value, json};
use uuid::Uuid;
use views::listing_search;

const FILE: &str = "icecat-19406.jsonl.zst";
/// Documents per `_bulk` request, about 1.5 MB.
const BULK_SIZE: usize = 1000;

/// Returns the folder with the data, if it exists.
pub fn data() -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("LISTINGS_DATA").map_or_else(default, PathBuf::from);
    folder.join(FILE).is_file().then_some(folder)
}

pub struct Catalogue {
    pub listings: Vec<Listing>,
}

impl Catalogue {
    /// Reads the catalogue with the converter that also writes the input of `command-api import`.
    pub fn load(data: &Path) -> anyhow::Result<Self> {
        let converter = Path::new(env!("CARGO_MANIFEST_DIR")).join("convert/icecat.py");
        let output =
            Command::new("python3").arg(converter).arg(data.join(FILE)).output().context("python3 could not be started")?;
        anyhow::ensure!(output.status.success(), "convert/icecat.py failed: {}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let listings = lines.map(|line| listing(&serde_json::from_slice(line)?)).collect::<anyhow::Result<_>>()?;
        Ok(Self { listings })
    }

    /// Writes all listings into the index and refreshes it.
    pub async fn index(&self, market: &Marketplace) -> anyhow::Result<()> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{}/_bulk?filter_path=errors,items.*.error", market.opensearch.address());
        let index = listing_search::index(&market.opensearch.alias, 1);
        for listings in self.listings.chunks(BULK_SIZE) {
            let mut bulk = Vec::new();
            for listing in listings {
                listing_search::put(&mut bulk, &index, listing)?;
            }
            let request = http.post(&url).header("content-type", "application/x-ndjson").body(bulk);
            let answer: Value = request.send().await?.error_for_status()?.json().await?;
            anyhow::ensure!(answer["errors"] == false, "OpenSearch refused a document: {answer:.2000}");
        }
        market.opensearch.refresh().await
    }
}

/// Builds the listing that command-api would make of a draft. The id is derived from the product number, so that hits with equal
/// scores have the same order in every run.
fn listing(draft: &Value) -> anyhow::Result<Listing> {
    let number: u128 = draft["external_id"].as_str().context("a draft without external_id")?.parse()?;
    let id = Uuid::from_u128(number << 64 | number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & u128::from(u64::MAX));
    let moment = "2026-11-21T09:30:00.000000Z";
    let mut listing = json!({
        "id": id, "version": 1, "status": "active", "visibility": "public", "seller_id": Uuid::nil(), "description": "",
        "category": null, "condition": "new", "brand": null, "tags": [], "location": null, "images": [], "variants": [{}],
        "available": true, "created_at": moment, "updated_at": moment, "published_at": moment,
    });
    for (name, value) in draft.as_object().context("a draft that is not an object")? {
        if name != "stock" && name != "images" {
            listing[name.as_str()] = value.clone();
        }
    }
    let sku = listing["variants"][0]["sku"].take();
    listing["variants"] = json!([{ "id": id, "sku": sku, "label": null, "price": null, "available": true }]);
    Ok(serde_json::from_value(listing)?)
}
