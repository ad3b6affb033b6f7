//! The table of results that is printed at the end.

use std::fmt;

/// One line of the table: a measurement, its baseline, and the goal for their ratio or difference.
pub struct Line {
    pub what: &'static str,
    pub ours: String,
    pub baseline: String,
    pub result: f64,
    /// The smallest and the largest result of a single round.
    pub range: Option<(f64, f64)>,
    pub goal: Goal,
}

/// The goal of a result.
pub enum Goal {
    AtLeast(f64),
    /// In milliseconds.
    AtMostMs(f64),
    /// Only reported, in milliseconds.
    ReportedMs,
}

impl Line {
    /// Builds a line with the ratio of two rates. The result is the median of the ratios of all rounds. Within a round both
    /// rates are measured right after each other, so that other load on the machine affects both alike.
    pub fn ratio(what: &'static str, ours: &[f64], baseline: &[f64], goal: f64) -> Self {
        let ratios: Vec<f64> = ours.iter().zip(baseline).map(|(ours, baseline)| ours / baseline).collect();
        let Rounds { median, least, most } = Rounds::of(&ratios);
        Self {
            what,
            result: median,
            range: Some((least, most)),
            ours: Rounds::of(ours).to_string(),
            baseline: Rounds::of(baseline).to_string(),
            goal: Goal::AtLeast(goal),
        }
    }
}

/// Median, smallest and largest value of several rounds.
pub struct Rounds {
    pub median: f64,
    least: f64,
    most: f64,
}

impl Rounds {
    pub fn of(rates: &[f64]) -> Self {
        let mut sorted = rates.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(sorted.len() / 2), least: at(0), most: at(sorted.len().saturating_sub(1)) }
    }
}

impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s ({:.0}–{:.0})", self.median, self.least, self.most)
    }
}

/// Prints the lines as a Markdown table.
pub fn print(lines: &[Line]) {
    println!("\n| what | ours | baseline | result | goal | reached |\n|---|---|---|---|---|---|");
    for Line { what, ours, baseline, result, range, goal } in lines {
        let range = range.map(|(least, most)| format!(" ({least:.2}–{most:.2})")).unwrap_or_default();
        let (result, goal, reached) = match goal {
            Goal::AtLeast(least) => (format!("{result:.2}"), format!("≥ {least}"), if result >= least { "yes" } else { "no" }),
            Goal::AtMostMs(most) => {
                (format!("{result:.2} ms"), format!("≤ {most} ms"), if result <= most { "yes" } else { "no" })
            }
            Goal::ReportedMs => (format!("{result:.0} ms"), "–".to_owned(), "–"),
        };
        println!("| {what} | {ours} | {baseline} | {result}{range} | {goal} | {reached} |");
    }
}
