//! Writes rows of state projections to Postgres. One statement writes many rows and fails as a whole for one of them, so a failed
//! statement is classified by its SQLSTATE (PROTOCOL P5) and, where one row may be at fault, split until that row is found.

use std::collections::HashSet;

use anyhow::anyhow;
use uuid::Uuid;

use crate::connections::StoreClients;
use crate::generations::{self, Generation};
use crate::projection::{EventFailure, EventResult, SystemicFailure, WriteEffect};

/// A table whose rows have a version.
pub trait VersionedTable: Sync {
    type Row: Sync;

    fn id(row: &Self::Row) -> Uuid;

    /// Writes the rows in one statement, and returns the ids of those that were newer than the stored ones.
    fn upsert(&self, rows: &[Self::Row]) -> impl Future<Output = sqlx::Result<Vec<Uuid>>> + Send;
}

/// SQLSTATE of a row that violates a check constraint, or for which there is no partition.
const NO_PARTITION: &str = "23514";

/// Makes the partitions of these generations.
pub async fn provision_partitions(stores: &StoreClients, generations: &[Generation]) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::with_capacity(generations.len());
    for generation in generations {
        let done = if generations::create_partition(&stores.db, generation).await? { "created" } else { "unchanged" };
        lines.push(format!("partition of {}: {done}", generation.name()));
    }
    Ok(lines)
}

/// Writes rows. A statement that fails because of one row is halved down to that row.
pub async fn upsert_all<T: VersionedTable>(table: &T, rows: &[T::Row]) -> Result<Vec<EventResult>, SystemicFailure> {
    let mut results = Vec::with_capacity(rows.len());
    let mut parts = vec![rows];
    let mut unknown = None;
    while let Some(part) = parts.pop() {
        match table.upsert(part).await {
            Ok(written) => {
                let written: HashSet<Uuid> = written.into_iter().collect();
                results.extend(
                    part.iter().map(|row| {
                        Ok(if written.contains(&T::id(row)) { WriteEffect::Applied } else { WriteEffect::Superseded })
                    }),
                );
            }
            Err(error) => match classify_error(&error) {
                SqlErrorScope::Server => return Err(SystemicFailure(anyhow!("Postgres: {error}"))),
                SqlErrorScope::Row | SqlErrorScope::Unknown if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                SqlErrorScope::Row => results.push(Err(EventFailure::Poison(anyhow!("Postgres: {error}")))),
                SqlErrorScope::Conflict => {
                    results.extend(part.iter().map(|_| Err(EventFailure::Transient(anyhow!("Postgres: {error}")))));
                }
                SqlErrorScope::Unknown => {
                    results.push(Err(EventFailure::Transient(anyhow!("Postgres: {error}"))));
                    unknown = Some(error);
                }
            },
        }
    }
    // If one row is left failing, that row is at fault; if all are, the server is.
    match unknown {
        Some(error) if rows.len() > 1 && results.iter().all(Result::is_err) => {
            Err(SystemicFailure(anyhow!("Postgres refuses each of {} rows: {error}", rows.len())))
        }
        _ => Ok(results),
    }
}

/// What is at fault when a statement failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SqlErrorScope {
    /// The server, the connection, the rights of our role: any statement would fail.
    Server,
    /// A value that the table cannot store.
    Row,
    /// A conflict with a concurrent transaction.
    Conflict,
    Unknown,
}

fn classify_error(error: &sqlx::Error) -> SqlErrorScope {
    if let sqlx::Error::Database(error) = error {
        let code = error.code().unwrap_or_default();
        // A row without a partition fails as a check does, but there is no constraint: the generation was not provisioned.
        let is_without_partition = code == NO_PARTITION && error.constraint().is_none();
        return if is_without_partition { SqlErrorScope::Server } else { classify_code(&code) };
    }
    if matches!(error, sqlx::Error::Encode(_)) { SqlErrorScope::Row } else { SqlErrorScope::Server }
}

/// Classifies a SQLSTATE. Its first two characters are its class.
fn classify_code(code: &str) -> SqlErrorScope {
    match (code, code.get(..2).unwrap_or_default()) {
        ("40001" | "40P01", _) => SqlErrorScope::Conflict,
        ("25006", _) | (_, "08" | "28" | "42" | "53" | "57") => SqlErrorScope::Server,
        (_, "22" | "23" | "54") => SqlErrorScope::Row,
        _ => SqlErrorScope::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_tells_what_it_is_about() {
        for (code, scope) in [
            ("22P05", SqlErrorScope::Row),
            ("23514", SqlErrorScope::Row),
            ("54000", SqlErrorScope::Row),
            ("40001", SqlErrorScope::Conflict),
            ("40P01", SqlErrorScope::Conflict),
            ("08006", SqlErrorScope::Server),
            ("25006", SqlErrorScope::Server),
            ("28P01", SqlErrorScope::Server),
            ("42P01", SqlErrorScope::Server),
            ("53300", SqlErrorScope::Server),
            ("57014", SqlErrorScope::Server),
            ("XX000", SqlErrorScope::Unknown),
            ("", SqlErrorScope::Unknown),
        ] {
            assert_eq!(classify_code(code), scope, "{code}");
        }
    }

    /// Refuses any statement with a 13 in it, and holds a newer 7.
    struct RefusesThirteen;

    impl VersionedTable for RefusesThirteen {
        type Row = u128;

        fn id(row: &u128) -> Uuid {
            Uuid::from_u128(*row)
        }

        async fn upsert(&self, rows: &[u128]) -> sqlx::Result<Vec<Uuid>> {
            if rows.contains(&13) {
                return Err(sqlx::Error::Encode("no table takes it".into()));
            }
            Ok(rows.iter().filter(|row| **row != 7).map(Self::id).collect())
        }
    }

    struct Unreachable;

    impl VersionedTable for Unreachable {
        type Row = u128;

        fn id(row: &u128) -> Uuid {
            Uuid::from_u128(*row)
        }

        async fn upsert(&self, _: &[u128]) -> sqlx::Result<Vec<Uuid>> {
            Err(sqlx::Error::PoolTimedOut)
        }
    }

    #[tokio::test]
    async fn one_bad_row_is_found_and_the_others_are_written() {
        let rows: Vec<u128> = (0..20).collect();
        let results = upsert_all(&RefusesThirteen, &rows).await.unwrap();
        for (row, outcome) in results.iter().enumerate() {
            match row {
                13 => assert!(matches!(outcome, Err(EventFailure::Poison(_)))),
                7 => assert!(matches!(outcome, Ok(WriteEffect::Superseded))),
                _ => assert!(matches!(outcome, Ok(WriteEffect::Applied)), "{row}"),
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_no_rows_fault() {
        assert!(upsert_all(&Unreachable, &[1, 2]).await.is_err());
    }
}
