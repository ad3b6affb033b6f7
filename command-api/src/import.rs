//! Reads listings from NDJSON and sends them to the batch route of a running command-api.
//!
//! Several senders work in parallel, each with one batch after another. A line is assigned to a sender by the hash of its
//! `external_id`, so two lines with the same `external_id` keep their order. An import that failed can be run again: a listing that is
//! already as its line says is not changed. A line without an `external_id` creates its listing again each time.

mod batch_sender;
mod report;

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
use service::program::print_line;
use service::run;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use self::batch_sender::{BatchSender, ImportLine, LineBatch};
use self::report::{ImportProgress, RejectsFile};
use crate::cli::Import;

/// Lifetime of the token that is made for an import. Longer than any import.
const TOKEN_FOR: Duration = Duration::from_hours(24);
/// The seller of listings whose line, flag and token name none. Always the same, so that a second import finds the listings of the
/// first.
const DEFAULT_SELLER: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001);
/// The batch route has a deadline of 20 s; a later answer does not come.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Batches that wait for a sender: enough to keep it busy, few enough to keep memory small.
const BATCHES_WAITING: usize = 2;
/// The longest line that the batch route accepts, in bytes.
const LINE_BYTES: usize = 1024 * 1024;

/// Some editors write it at the beginning of a UTF-8 file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Imports a file. Fails if any line was rejected, after all lines were sent.
pub async fn import(settings: &Import) -> anyhow::Result<()> {
    let (input, size) = open(&settings.file).await?;
    let progress = Arc::new(ImportProgress::new(size));
    let rejects = Arc::new(RejectsFile::new(settings.rejects.clone().unwrap_or_else(|| default_rejects_path(&settings.file))));
    let url = settings.url.join("/api/v1/listings/batch").context("--url")?;
    let client = client(settings, &url)?;

    let mut senders = JoinSet::new();
    let mut queues = Vec::new();
    for _ in 0..settings.parallel {
        let (queue, batches) = mpsc::channel(BATCHES_WAITING);
        let sender =
            BatchSender { client: client.clone(), url: url.clone(), progress: progress.clone(), rejects: rejects.clone() };
        senders.spawn(sender.run(batches));
        queues.push(queue);
    }
    let reading = read_lines(input, settings.seller_to_name(), queues, &progress, &rejects);
    let stop = run::stop_on_signal()?;
    let outcome = tokio::select! {
        outcome = async { tokio::try_join!(reading, join_all(senders)).map(|_| ()) } => outcome,
        () = progress.report_regularly() => Ok(()),
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped; run the same import again to continue")),
    };
    // Also after an error or a stop: the summary says what was done until then.
    rejects.close().await?;
    print_line(progress.summary())?;
    if progress.without_external_id() > 0 {
        print_line(format_args!(
            "{} of them have no external_id: another import would create them again",
            progress.without_external_id()
        ))?;
    }
    if outcome.is_err() && progress.rejected() > 0 {
        print_line(format_args!("{} says why lines were rejected", rejects.path().display()))?;
    }
    outcome?;
    anyhow::ensure!(
        progress.rejected() == 0,
        "{} lines were rejected; {} says why",
        progress.rejected(),
        rejects.path().display()
    );
    Ok(())
}

/// Waits until all senders are done, or one of them fails.
async fn join_all(mut senders: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    Ok(())
}

async fn open(file: &Path) -> anyhow::Result<(Box<dyn AsyncBufRead + Send + Unpin>, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::new(BufReader::new(tokio::io::stdin())), None));
    }
    let opened = tokio::fs::File::open(file).await.with_context(|| format!("cannot open {}", file.display()))?;
    let size = opened.metadata().await?.len();
    Ok((Box::new(BufReader::with_capacity(LINE_BYTES, opened)), Some(size)))
}

/// Returns the path of the rejects file: next to the input file.
fn default_rejects_path(file: &Path) -> PathBuf {
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
        signer.mint(settings.seller.unwrap_or(DEFAULT_SELLER), Roles::ADMIN.names(), TOKEN_FOR)?
    };
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).context("the token is no header value")?;
    bearer.set_sensitive(true);
    let mut client = Client::builder().timeout(ANSWER_WITHIN).default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]));
    if url.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]")) {
        // A proxy from the environment is not meant for this machine.
        client = client.no_proxy();
    }
    Ok(client.build()?)
}

/// Reads lines and queues them for the senders. Returns early, without an error, if a sender has ended: the sender's error says why.
async fn read_lines(
    mut input: Box<dyn AsyncBufRead + Send + Unpin>,
    seller: Option<Uuid>,
    queues: Vec<mpsc::Sender<Vec<ImportLine>>>,
    progress: &ImportProgress,
    rejects: &RejectsFile,
) -> anyhow::Result<()> {
    let mut batches: Vec<LineBatch> = queues.iter().map(|_| LineBatch::default()).collect();
    let mut bytes = Vec::new();
    let mut number = 0;
    loop {
        bytes.clear();
        if input.read_until(b'\n', &mut bytes).await.context("cannot read the next line")? == 0 {
            break;
        }
        number += 1;
        progress.read(bytes.len());
        let text = bytes.strip_prefix(BYTE_ORDER_MARK).filter(|_| number == 1).unwrap_or(&bytes).trim_ascii();
        if text.is_empty() {
            continue;
        }
        if text.len() > LINE_BYTES {
            let problem = json!({ "detail": format!("The line is longer than {LINE_BYTES} bytes"), "status": 413 });
            rejects.add(number, 413, &problem, &text[..LINE_BYTES / 1024]).await?;
            progress.reject();
            continue;
        }
        let (external_id, text) = prepare(text, seller);
        let sender = usize::try_from(external_id.map_or(number, |id| hash(&id)) % queues.len() as u64)?;
        if let Some(full) = batches[sender].add(ImportLine { number, text })
            && queues[sender].send(full).await.is_err()
        {
            return Ok(());
        }
    }
    for (batch, queue) in batches.into_iter().zip(&queues) {
        if let Some(rest) = batch.rest()
            && queue.send(rest).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

/// Returns the line's `external_id`, and the line with the seller added if it names none. A line that is not a JSON object stays as
/// it is: the server says what is wrong with it.
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
        assert_eq!(default_rejects_path(Path::new("data/a.ndjson")), Path::new("data/a.ndjson.rejects"));
        assert_eq!(default_rejects_path(Path::new("-")), Path::new("rejects.ndjson"));
    }
}
