//! Reads listings from NDJSON and sends them through the batch route of a running command-api.
//!
//! Lines go to lanes by their `external_id`, and each lane sends one batch after another: two lines of the same name keep
//! their order. Whatever breaks, running the same import again ends it: a listing that is already as its line says is not
//! changed. Lines without an `external_id` have no such name, and are created again each time.

mod lane;
mod progress;
mod rejects;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use events::Roles;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Url};
use serde_json::{Value, json};
use service::clock::Clock;
use service::run;
use service::stdout::tell;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use self::lane::{Lane, Line};
use self::progress::Progress;
use self::rejects::Rejects;
use crate::cli::Import;

/// Longer than any import.
const TOKEN_FOR: Duration = Duration::from_hours(24);
/// Whose listings they are if nobody says: the same each time, so that a second import finds what the first one made.
const NOBODY_IN_PARTICULAR: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001);
/// A batch has 20 s; beyond that nobody is listening any more.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Batches that a lane may be behind: enough to keep it busy, few enough to keep memory small.
const BATCHES_WAITING: usize = 2;
/// The longest line that the batch route takes, in bytes.
const LINE: usize = 1024 * 1024;

/// Some editors begin a file of UTF-8 with it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Done when every line was either taken or refused; an error if any was refused.
pub async fn import(settings: &Import) -> anyhow::Result<()> {
    let (input, size) = open(&settings.file).await?;
    let progress = Arc::new(Progress::new(size));
    let rejects = Arc::new(Rejects::new(settings.rejects.clone().unwrap_or_else(|| beside(&settings.file))));
    let url = settings.url.join("/api/v1/listings/batch").context("--url")?;
    let client = client(settings, &url)?;

    let mut lanes = JoinSet::new();
    let mut senders = Vec::new();
    for _ in 0..settings.parallel {
        let (sender, batches) = mpsc::channel(BATCHES_WAITING);
        let lane = Lane { client: client.clone(), url: url.clone(), progress: progress.clone(), rejects: rejects.clone() };
        lanes.spawn(lane.run(batches));
        senders.push(sender);
    }
    let reading = deal(input, settings.seller_to_name(), senders, &progress, &rejects);
    let stop = run::stop_on_signal()?;
    let outcome = tokio::select! {
        outcome = async { tokio::try_join!(reading, all(lanes)).map(|_| ()) } => outcome,
        () = progress.tell_regularly() => Ok(()),
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped; the same import again goes on where this one ended")),
    };
    // However it ended: this is what was done until then.
    rejects.close().await?;
    tell(progress.summary())?;
    if progress.nameless() > 0 {
        tell(format_args!("{} of them have no external_id: another import would create them again", progress.nameless()))?;
    }
    if outcome.is_err() && progress.refused() > 0 {
        tell(format_args!("{} says why lines were refused", rejects.path().display()))?;
    }
    outcome?;
    anyhow::ensure!(progress.refused() == 0, "{} lines were refused; {} says why", progress.refused(), rejects.path().display());
    Ok(())
}

/// All lanes have ended well, or one of them did not.
async fn all(mut lanes: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    Ok(())
}

async fn open(file: &Path) -> anyhow::Result<(Box<dyn AsyncBufRead + Send + Unpin>, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::new(BufReader::new(tokio::io::stdin())), None));
    }
    let opened = tokio::fs::File::open(file).await.with_context(|| format!("cannot open {}", file.display()))?;
    let size = opened.metadata().await?.len();
    Ok((Box::new(BufReader::with_capacity(LINE, opened)), Some(size)))
}

/// Refused lines go beside the file that they are from.
fn beside(file: &Path) -> PathBuf {
    if file == Path::new("-") {
        return PathBuf::from("rejects.ndjson");
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".rejects");
    name.into()
}

fn client(settings: &Import, url: &Url) -> anyhow::Result<Client> {
    let token = if let Some(token) = &settings.token.0 {
        token.expose().to_owned()
    } else {
        let signer = settings.signing.required_signer(Clock::System).context("LISTINGS_TOKEN is not set either")?;
        signer.mint(settings.seller.unwrap_or(NOBODY_IN_PARTICULAR), Roles::ADMIN.names(), TOKEN_FOR)?
    };
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).context("the token is no header value")?;
    bearer.set_sensitive(true);
    let mut client = Client::builder().timeout(ANSWER_WITHIN).default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]));
    if url.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]")) {
        // A proxy for the outside world has nothing to say about this machine.
        client = client.no_proxy();
    }
    Ok(client.build()?)
}

/// Reads lines and deals them out to the lanes. Ends early, without complaint, if a lane has ended: that one says why.
async fn deal(
    mut input: Box<dyn AsyncBufRead + Send + Unpin>,
    seller: Option<Uuid>,
    senders: Vec<mpsc::Sender<Vec<Line>>>,
    progress: &Progress,
    rejects: &Rejects,
) -> anyhow::Result<()> {
    let mut batches: Vec<lane::Batch> = senders.iter().map(|_| lane::Batch::default()).collect();
    let mut bytes = Vec::new();
    let mut number = 0;
    loop {
        bytes.clear();
        if input.read_until(b'\n', &mut bytes).await.context("cannot read on")? == 0 {
            break;
        }
        number += 1;
        progress.read(bytes.len());
        let text = bytes.strip_prefix(BYTE_ORDER_MARK).filter(|_| number == 1).unwrap_or(&bytes).trim_ascii();
        if text.is_empty() {
            continue;
        }
        if text.len() > LINE {
            let problem = json!({ "detail": format!("The line is longer than {LINE} bytes"), "status": 413 });
            rejects.add(number, 413, &problem, &text[..LINE / 1024]).await?;
            progress.refuse();
            continue;
        }
        let (name, text) = prepare(text, seller);
        let lane = usize::try_from(name.map_or(number, |name| hash(&name)) % senders.len() as u64)?;
        if let Some(full) = batches[lane].add(Line { number, text })
            && senders[lane].send(full).await.is_err()
        {
            return Ok(());
        }
    }
    for (batch, sender) in batches.into_iter().zip(&senders) {
        if let Some(rest) = batch.rest()
            && sender.send(rest).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

/// The line's `external_id`, and the line with its seller in it. What is no listing at all goes as it is: the server says
/// what is wrong with it.
fn prepare(text: &[u8], seller: Option<Uuid>) -> (Option<String>, Vec<u8>) {
    let Ok(Value::Object(mut listing)) = serde_json::from_slice(text) else { return (None, text.to_owned()) };
    let name = listing.get("external_id").and_then(Value::as_str).map(str::to_owned);
    match seller {
        Some(seller) if listing.get("seller_id").is_none_or(Value::is_null) => {
            listing.insert("seller_id".to_owned(), Value::from(seller.to_string()));
            (name, Value::Object(listing).to_string().into_bytes())
        }
        Some(_) | None => (name, text.to_owned()),
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_a_seller_gets_the_one_named() {
        let seller = Uuid::from_u128(5);
        let (name, text) = prepare(br#"{"title":"t","external_id":"x"}"#, Some(seller));
        assert_eq!(name.as_deref(), Some("x"));
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap()["seller_id"], seller.to_string());

        let own = br#"{"seller_id":"00000000-0000-0000-0000-000000000001"}"#;
        assert_eq!(prepare(own, Some(seller)), (None, own.to_vec()));
        assert_eq!(prepare(b"{nonsense", Some(seller)), (None, b"{nonsense".to_vec()));
    }

    #[test]
    fn refused_lines_go_beside_their_file() {
        assert_eq!(beside(Path::new("data/a.ndjson")), Path::new("data/a.ndjson.rejects"));
        assert_eq!(beside(Path::new("-")), Path::new("rejects.ndjson"));
    }
}
