//! What both projections in Postgres share: one statement writes many rows, and fails as a whole for one of them.

use std::collections::HashSet;

use anyhow::anyhow;
use uuid::Uuid;

use crate::connections::StoreClients;
use crate::generations::{self, Generation};
use crate::projection::{EventFailure, EventResult, SystemicFailure, WriteEffect};

/// A table that rows of one kind are written to.
pub trait Table: Sync {
    type Row: Sync;

    fn id(row: &Self::Row) -> Uuid;

    /// Writes the rows in one statement and answers with the ids of those that were newer than what it held.
    fn upsert(&self, rows: &[Self::Row]) -> impl Future<Output = sqlx::Result<Vec<Uuid>>> + Send;
}

/// Makes the partitions of these generations.
pub async fn provision_partitions(stores: &StoreClients, generations: &[Generation]) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::with_capacity(generations.len());
    for generation in generations {
        generations::create_partition(&stores.db, generation).await?;
        lines.push(format!("partition of {}: is as it should be", generation.name()));
    }
    Ok(lines)
}

/// Writes rows; a statement that fails for one row's sake is halved down to that row.
pub async fn upsert_all<T: Table>(table: &T, rows: &[T::Row]) -> Result<Vec<EventResult>, SystemicFailure> {
    let mut outcomes = Vec::with_capacity(rows.len());
    let mut parts = vec![rows];
    let mut unknown = None;
    while let Some(part) = parts.pop() {
        match table.upsert(part).await {
            Ok(written) => {
                let written: HashSet<Uuid> = written.into_iter().collect();
                outcomes.extend(
                    part.iter().map(|row| {
                        Ok(if written.contains(&T::id(row)) { WriteEffect::Applied } else { WriteEffect::Superseded })
                    }),
                );
            }
            Err(error) => match judge(&error) {
                Judged::Server => return Err(SystemicFailure(anyhow!("Postgres: {error}"))),
                Judged::Row | Judged::Unknown if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Judged::Row => outcomes.push(Err(EventFailure::Poison(anyhow!("Postgres: {error}")))),
                Judged::Conflict => {
                    outcomes.extend(part.iter().map(|_| Err(EventFailure::Transient(anyhow!("Postgres: {error}")))));
                }
                Judged::Unknown => {
                    outcomes.push(Err(EventFailure::Transient(anyhow!("Postgres: {error}"))));
                    unknown = Some(error);
                }
            },
        }
    }
    // One row that is left failing is about the row; all of them are about the server.
    match unknown {
        Some(error) if rows.len() > 1 && outcomes.iter().all(Result::is_err) => {
            Err(SystemicFailure(anyhow!("Postgres refuses each of {} rows: {error}", rows.len())))
        }
        _ => Ok(outcomes),
    }
}

/// What a failed statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// The server, the connection, our rights: any statement would fail.
    Server,
    /// A value that no table takes.
    Row,
    /// Others wrote at the same time.
    Conflict,
    Unknown,
}

fn judge(error: &sqlx::Error) -> Judged {
    if let sqlx::Error::Database(error) = error {
        return judge_code(error.code().as_deref().unwrap_or_default());
    }
    if matches!(error, sqlx::Error::Encode(_)) { Judged::Row } else { Judged::Server }
}

/// By SQLSTATE; its first two letters are a class.
fn judge_code(code: &str) -> Judged {
    match (code, code.get(..2).unwrap_or_default()) {
        ("40001" | "40P01", _) => Judged::Conflict,
        ("25006", _) | (_, "08" | "28" | "42" | "53" | "57") => Judged::Server,
        (_, "22" | "23" | "54") => Judged::Row,
        _ => Judged::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_tells_what_it_is_about() {
        for (code, judged) in [
            ("22P05", Judged::Row),
            ("23514", Judged::Row),
            ("54000", Judged::Row),
            ("40001", Judged::Conflict),
            ("40P01", Judged::Conflict),
            ("08006", Judged::Server),
            ("25006", Judged::Server),
            ("28P01", Judged::Server),
            ("42P01", Judged::Server),
            ("53300", Judged::Server),
            ("57014", Judged::Server),
            ("XX000", Judged::Unknown),
            ("", Judged::Unknown),
        ] {
            assert_eq!(judge_code(code), judged, "{code}");
        }
    }

    /// Refuses any statement with a 13 in it, and holds a newer 7.
    struct Superstitious;

    impl Table for Superstitious {
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

    struct Away;

    impl Table for Away {
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
        let outcomes = upsert_all(&Superstitious, &rows).await.unwrap();
        for (row, outcome) in outcomes.iter().enumerate() {
            match row {
                13 => assert!(matches!(outcome, Err(EventFailure::Poison(_)))),
                7 => assert!(matches!(outcome, Ok(WriteEffect::Superseded))),
                _ => assert!(matches!(outcome, Ok(WriteEffect::Applied)), "{row}"),
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_no_rows_fault() {
        assert!(upsert_all(&Away, &[1, 2]).await.is_err());
    }
}
