//! Two lines over the last hour, as coordinates for SVG.

use std::fmt::Write as _;

/// A chart of two series; the template draws the axes.
#[derive(Clone)]
pub struct Chart {
    pub title: String,
    pub names: [&'static str; 2],
    /// What `points` of each part of a line takes: a line ends where nothing was measured.
    pub lines: [Vec<String>; 2],
    /// Height in the drawing, and what it stands for.
    pub grid: Vec<(f64, String)>,
    pub last: [String; 2],
    /// Minutes that it goes back.
    pub minutes: u64,
}

/// The drawing's place inside the view box of 600 by 180.
const LEFT: f64 = 44.0;
const RIGHT: f64 = 592.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 156.0;

impl Chart {
    pub fn new(title: String, names: [&'static str; 2], series: [&[Option<f64>]; 2], step: u64) -> Self {
        let most = series.iter().flat_map(|line| line.iter().flatten()).copied().fold(0.0, f64::max);
        let top = ceiling(most);
        let height = |value: f64| BOTTOM - (BOTTOM - TOP) * value / top;
        let grid = [0.0, 0.5, 1.0].map(|part| (height(top * part), number(top * part)));
        let last =
            series.map(|line| line.last().copied().flatten().map_or_else(|| "nothing".to_owned(), number));
        let steps = series[0].len();
        Self {
            title,
            names,
            lines: series.map(|line| draw(line, height)),
            grid: grid.to_vec(),
            last,
            minutes: (steps as u64 * step).div_ceil(60),
        }
    }
}

/// The least of 1, 2, 5, 10, ... and their fractions that is not below.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|top| *top >= value).unwrap_or(value)
}

fn number(value: f64) -> String {
    if value == 0.0 || value >= 10.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn draw(line: &[Option<f64>], height: impl Fn(f64) -> f64) -> Vec<String> {
    let width = (RIGHT - LEFT) / line.len().saturating_sub(1).max(1) as f64;
    let mut parts = Vec::new();
    let mut points = String::new();
    for (at, value) in line.iter().enumerate() {
        match value {
            Some(value) => {
                // Writing to a String cannot fail.
                let _ = write!(points, "{:.1},{:.1} ", LEFT + width * at as f64, height(*value));
            }
            None if points.is_empty() => {}
            None => parts.push(std::mem::take(&mut points)),
        }
    }
    parts.extend((!points.is_empty()).then_some(points));
    // A point alone is drawn as a line of no length, whose round ends make a dot.
    let dot = |part: String| if part.matches(',').count() == 1 { part.repeat(2) } else { part };
    parts.into_iter().map(dot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_ends_at_a_round_number() {
        let check = |value: f64, top: f64| {
            let found = ceiling(value);
            assert!((found - top).abs() < 1e-9 * top, "{value}: {found}");
        };
        check(0.0, 1.0);
        check(1.0, 1.0);
        check(1.1, 2.0);
        check(49.0, 50.0);
        check(99.0, 100.0);
        check(0.03, 0.05);
    }

    #[test]
    fn a_line_breaks_where_nothing_was_measured() {
        let chart = Chart::new(
            "latency".into(),
            ["a", "b"],
            [&[Some(1.0), Some(2.0), None, Some(0.0)], &[None, None, None, None]],
            10,
        );
        assert_eq!(chart.lines[0], ["44.0,83.0 226.7,10.0 ", "592.0,156.0 592.0,156.0 "]);
        assert!(chart.lines[1].is_empty());
        assert_eq!(chart.last, ["0", "nothing"]);
        assert_eq!(chart.minutes, 1);
    }
}
