//! The last hour as coordinates for SVG.

use std::fmt::Write as _;

use crate::admin::Series;

/// Requests per minute, stacked by outcome.
pub struct Chart {
    pub columns: Vec<Column>,
    /// The labels of the axis, from the top.
    pub axis: [String; 3],
    pub minutes: usize,
}

/// One minute. Heights are percentages of the axis.
pub struct Column {
    pub x: f64,
    pub width: f64,
    pub about: String,
    pub ok: Bar,
    pub denied: Bar,
    pub failed: Bar,
}

pub struct Bar {
    pub y: f64,
    pub height: f64,
}

const MINUTES: usize = 60;

impl Chart {
    pub fn new(series: &Series, step: u64) -> Self {
        let steps = usize::try_from(60 / step.max(1)).unwrap_or(1).max(1);
        let minutes = |counts: &[u64]| minutes(counts, steps);
        let (all, refused, failed) =
            (minutes(&series.requests), minutes(&series.refused), minutes(&series.failed));
        let top = ceiling(all.iter().copied().max().unwrap_or(0));
        #[expect(clippy::cast_precision_loss, reason = "for display only")]
        let height = |count: u64| count as f64 * 100.0 / top as f64;
        let width = 600.0 / 60.0;
        let column = |at: usize| {
            let failed = failed[at].min(all[at]);
            let denied = refused[at].saturating_sub(failed).min(all[at] - failed);
            let ok = all[at] - failed - denied;
            let bar =
                |count: u64, below: u64| Bar { y: 100.0 - height(below + count), height: height(count) };
            let ago = MINUTES - 1 - at;
            Column {
                #[expect(clippy::cast_precision_loss, reason = "at most 60")]
                x: at as f64 * width,
                width: width - 2.0,
                about: format!(
                    "{}: {ok} ok, {denied} denied, {failed} failed",
                    if ago == 0 { "this minute".to_owned() } else { format!("{ago} min ago") }
                ),
                ok: bar(ok, 0),
                denied: bar(denied, ok),
                failed: bar(failed, ok + denied),
            }
        };
        Self {
            columns: (0..MINUTES).map(column).collect(),
            axis: [
                top.to_string(),
                if top > 1 { (top / 2).to_string() } else { String::new() },
                "0".to_owned(),
            ],
            minutes: MINUTES,
        }
    }
}

/// The sums of the last hour's minutes, of so many steps each.
fn minutes(counts: &[u64], steps: usize) -> Vec<u64> {
    let mut sums: Vec<u64> = counts.rchunks(steps).map(|part| part.iter().sum()).collect();
    sums.resize(MINUTES, 0);
    sums.reverse();
    sums
}

/// The smallest of 2, 4, 10, 20, 40, 100, ... that is not below `value`; half of each is whole.
fn ceiling(value: u64) -> u64 {
    let mut power = 1_u64;
    loop {
        for step in [2, 4, 10] {
            let top = power.saturating_mul(step);
            if top >= value {
                return top;
            }
        }
        power = power.saturating_mul(10);
    }
}

/// The hour as a line of one point per minute: the `d` of a path in a box of 120 by 28.
pub fn spark(counts: &[u64]) -> String {
    let sums = minutes(counts, 6);
    let top = sums.iter().copied().max().unwrap_or(0).max(1);
    let last = sums.len().saturating_sub(1).max(1);
    let mut line = String::new();
    for (at, sum) in sums.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "for display only")]
        let (x, y) = (at as f64 * 120.0 / last as f64, 26.0 - *sum as f64 * 24.0 / top as f64);
        // Writing to a String cannot fail.
        let _ = write!(line, "{}{x:.1} {y:.1}", if at == 0 { "M" } else { "L" });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_ends_at_a_round_number() {
        let check = |value: u64, top: u64| assert_eq!(ceiling(value), top, "{value}");
        check(0, 2);
        check(1, 2);
        check(3, 4);
        check(5, 10);
        check(99, 100);
        check(101, 200);
        check(u64::MAX, u64::MAX);
    }

    #[test]
    fn a_column_stacks_what_became_of_a_minute() {
        let series = Series {
            requests: vec![5, 5, 0, 0, 0, 0, 0, 0, 10],
            refused: vec![0, 0, 0, 0, 0, 0, 0, 0, 4],
            failed: vec![0, 0, 0, 0, 0, 0, 0, 0, 1],
            ..Series::default()
        };
        let chart = Chart::new(&series, 10);
        assert_eq!((chart.columns.len(), chart.axis[0].as_str()), (60, "10"));
        let last = &chart.columns[59];
        assert_eq!(last.about, "this minute: 6 ok, 3 denied, 1 failed");
        assert!((last.ok.height - 60.0).abs() < 1e-9 && (last.failed.y - 0.0).abs() < 1e-9);
        assert_eq!(chart.columns[58].about, "1 min ago: 10 ok, 0 denied, 0 failed");
        assert_eq!(chart.columns[0].about, "59 min ago: 0 ok, 0 denied, 0 failed");
    }

    #[test]
    fn a_sparkline_goes_from_edge_to_edge() {
        let line = spark(&[0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0]);
        assert!(line.starts_with("M0.0 26.0L2.0 26.0") && line.ends_with("L118.0 26.0L120.0 2.0"), "{line}");
        assert_eq!(line.matches('L').count(), MINUTES - 1);
    }
}
