//! Many listings in one request: NDJSON in, NDJSON out, one line for each line.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use events::ListingId;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use service::http::{MediaTypes, Raw};
use service::json;
use service::problem::{Kind, Problem};
use utoipa::ToSchema;

use super::handler::Seller;
use crate::command::CommandApp;
use crate::listings::create_batch::{self, BatchLine, FAULTS_OF_A_LINE, LineOutcome};
use crate::listings::draft::ListingDraft;

const NDJSON: &str = "application/x-ndjson";

/// The most lines that one batch takes; empty ones do not count.
const LINES: usize = 1_000;
/// The longest line, in bytes.
const LINE: usize = 1024 * 1024;
/// The longest batch, in bytes.
pub const BATCH: usize = 16 * 1024 * 1024;

pub struct Ndjson;

impl MediaTypes for Ndjson {
    const ACCEPTED: &'static [&'static str] = &[NDJSON];
}

/// One line of the answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchLine)]
struct AnswerLine {
    /// Which line of the request it is for, from 0.
    index: usize,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<ListingId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

impl AnswerLine {
    fn done(index: usize, done: LineOutcome) -> Self {
        let status = if done.created { StatusCode::CREATED } else { StatusCode::OK };
        Self { index, status: status.as_u16(), id: Some(done.id), version: Some(done.version), problem: None }
    }

    fn refused(index: usize, mut problem: Problem) -> Self {
        problem.errors.truncate(FAULTS_OF_A_LINE);
        Self { index, status: problem.http_status().as_u16(), id: None, version: None, problem: Some(problem) }
    }
}

/// Create or replace many listings
///
/// One listing a line, at most 1000 lines of at most 1 MiB, 16 MiB in all. A line replaces the seller's listing of the same
/// `external_id`, else it creates one. A bad line fails alone.
#[utoipa::path(
    post, path = "/api/v1/listings/batch", operation_id = "createListings", tag = "listings",
    request_body(content = ListingDraft, content_type = "application/x-ndjson"),
    responses(
        (status = 200, description = "What became of each line, in their order", body = AnswerLine, content_type = "application/x-ndjson"),
        (status = "default", description = "A problem of the batch as a whole", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn create_listings(State(app): State<CommandApp>, seller: Seller, body: Raw<Ndjson>) -> Result<Response, Problem> {
    let lines: Vec<&[u8]> = body.bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect();
    if lines.len() > LINES {
        return Err(Problem::new(Kind::TooLarge, format!("A batch takes at most {LINES} lines")));
    }
    let mut answers = Vec::with_capacity(lines.len());
    let (mut indices, mut readable) = (Vec::new(), Vec::new());
    for (index, line) in lines.into_iter().enumerate() {
        match read(line) {
            Ok(line) => {
                indices.push(index);
                readable.push(line);
            }
            Err(problem) => answers.push(AnswerLine::refused(index, problem)),
        }
    }
    let outcomes = create_batch::create_batch(&app, &seller.actor, &readable).await?;
    answers.extend(indices.into_iter().zip(outcomes).map(|(index, outcome)| match outcome {
        Ok(done) => AnswerLine::done(index, done),
        Err(refused) => AnswerLine::refused(index, refused.into()),
    }));
    answers.sort_unstable_by_key(|answer| answer.index);
    in_ndjson(&answers)
}

fn read(line: &[u8]) -> Result<BatchLine, Problem> {
    if line.len() > LINE {
        return Err(Problem::new(Kind::TooLarge, format!("A line takes at most {LINE} bytes")));
    }
    let (draft, unknown) = json::read::<ListingDraft>(line)?;
    Ok(BatchLine { draft, unknown })
}

fn in_ndjson(answers: &[AnswerLine]) -> Result<Response, Problem> {
    let mut body = Vec::new();
    for answer in answers {
        serde_json::to_writer(&mut body, answer).map_err(|error| Problem::logged(&error.into()))?;
        body.push(b'\n');
    }
    Ok(([(CONTENT_TYPE, NDJSON)], body).into_response())
}
