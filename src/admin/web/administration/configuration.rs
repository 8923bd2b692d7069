//! The configuration in force, and what a reload would change: the lines that differ, with a few lines of
//! context.

use askama::Template;

use super::{ApiResult, Reader, Shell, render};
use crate::{
    admin::{Context, configuration::FILES},
    authz::subject::Permission,
};

#[derive(Template)]
#[template(path = "configuration.html")]
struct ConfigurationPage {
    shell: Shell,
    text: String,
    /// The changes in the file that are not in force yet.
    pending: Pending,
}

enum Pending {
    Same,
    Unreadable(String),
    Changed(Vec<DiffLine>),
}

pub async fn show(context: Context, reader: Reader) -> ApiResult {
    reader.caller.require(Permission::AdminRead)?;
    let text = context.configuration.text();
    let (configuration, present) = (context.configuration.clone(), text.clone());
    let pending = FILES.run(move || match configuration.file() {
        Ok(file) if file == present => Pending::Same,
        Ok(file) => Pending::Changed(lines(&present, &file)),
        Err(error) => Pending::Unreadable(error),
    });
    let pending = pending.await?;
    let page = ConfigurationPage { shell: reader.shell("Configuration", "/configuration"), text, pending };
    Ok(render(&page))
}

/// A line of the diff.
#[derive(Debug, PartialEq, Eq)]
pub struct DiffLine {
    /// `plus`, `minus`, or empty for a line of both texts.
    pub tone: &'static str,
    /// The line's number in its text.
    pub number: usize,
    pub text: String,
}

/// Lines of context around a change.
const CONTEXT: usize = 2;
/// If more lines than this differ, all of them are shown as replaced.
const MAX_COMPARED: usize = 2_000;

/// The diff from the first text to the second.
pub fn lines(before: &str, after: &str) -> Vec<DiffLine> {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let start = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let ends = before[start..].iter().rev().zip(after[start..].iter().rev());
    let end = ends.take_while(|(a, b)| a == b).count();
    let (old, new) = (&before[start..before.len() - end], &after[start..after.len() - end]);
    let line = |tone, index: usize, text: &str| DiffLine { tone, number: index + 1, text: text.to_owned() };
    let mut found: Vec<DiffLine> =
        (start.saturating_sub(CONTEXT)..start).map(|at| line("", at, after[at])).collect();
    if old.len() > MAX_COMPARED || new.len() > MAX_COMPARED {
        found.extend(old.iter().enumerate().map(|(at, text)| line("minus", start + at, text)));
        found.extend(new.iter().enumerate().map(|(at, text)| line("plus", start + at, text)));
    } else {
        found.extend(changes(old, new, start));
    }
    let from = after.len() - end;
    found.extend((from..after.len().min(from + CONTEXT)).map(|at| line("", at, after[at])));
    found
}

/// Compares by the longest common subsequence.
fn changes(old: &[&str], new: &[&str], start: usize) -> Vec<DiffLine> {
    let width = new.len() + 1;
    let mut common = vec![0_u16; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    let line =
        |tone, index: usize, text: &str| DiffLine { tone, number: start + index + 1, text: text.to_owned() };
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            found.push(line("", j, new[j]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]
        {
            found.push(line("minus", i, old[i]));
            i += 1;
        } else {
            found.push(line("plus", j, new[j]));
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_and_its_surroundings_are_shown() {
        fn check(before: &str, after: &str, expected: &[(&str, usize, &str)]) {
            let found = lines(before, after);
            let found: Vec<(&str, usize, &str)> =
                found.iter().map(|line| (line.tone, line.number, line.text.as_str())).collect();
            assert_eq!(found, expected, "{before:?} {after:?}");
        }
        check("a\nb", "a\nb", &[("", 1, "a"), ("", 2, "b")]);
        check("a\nb\nc", "a\nx\nc", &[("", 1, "a"), ("minus", 2, "b"), ("plus", 2, "x"), ("", 3, "c")]);
        check("", "a", &[("plus", 1, "a")]);
        check("1\n2\n3\n4\n5", "1\n2\n3\n5", &[("", 2, "2"), ("", 3, "3"), ("minus", 4, "4"), ("", 4, "5")]);
        check(
            "a\nb\nc\nd",
            "b\nc\ne\nd",
            &[("minus", 1, "a"), ("", 1, "b"), ("", 2, "c"), ("plus", 3, "e"), ("", 4, "d")],
        );
    }
}
