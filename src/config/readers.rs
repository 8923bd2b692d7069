//! Warns about readers that are not groups. Groups are in the store, so the check needs both. An unknown name
//! is no error, since the group may be created later; until then it has no effect.

use std::{collections::HashSet, ops::Range};

use super::{Config, Problem, suggest::advice};
use crate::authz::accounts::fold;

impl Config {
    /// Returns a warning for each name in `readers` that is not in `groups`.
    pub fn unknown_readers<'g>(&self, groups: impl IntoIterator<Item = &'g str>) -> Vec<Problem> {
        let groups: Vec<&str> = groups.into_iter().collect();
        let folded: HashSet<_> = groups.iter().map(|group| fold(group)).collect();
        let known = |name: &str| folded.contains(&fold(name));
        let mut problems = Vec::new();
        for service in &self.services {
            for name in service.readers.iter().filter(|name| !known(name)) {
                let message = format!(
                    "there is no group {name:?}: nobody becomes a reader of `{}` through it",
                    service.key
                );
                let advice = advice(name, groups.iter().copied(), || {
                    format!("create it with `permgate group create {name:?}`")
                });
                let key = format!("service.{}.readers", service.key);
                problems.push(match self.variable_setting(&key) {
                    Some(_) => self.problem_at_key(&key, message, &advice),
                    None => {
                        let span = self.span_of_word(service.origin.line, name);
                        self.problem_at_span(span, message, &advice)
                    }
                });
            }
        }
        problems
    }

    /// The span of a quoted word, on or below a line.
    fn span_of_word(&self, line: u32, word: &str) -> Option<Range<usize>> {
        let quoted = format!("{word:?}");
        let before = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
        let start = self.text.split_inclusive('\n').take(before).map(str::len).sum();
        let at = start + self.text.get(start..)?.find(&quoted)?;
        Some(at..at + quoted.len())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn readers_that_are_no_group_are_named_where_they_stand() {
        let text = "version = 1\n[upstream.up]\nurls = [\"http://127.0.0.1:1\"]\n[service.app]\nupstream = \"up\"\n\
                    paths = [\"/app\"]\nreaders = [\"all-users\", \"Staff\", \"developerz\", \"auditors\"]\n";
        let config = super::super::parse(text, Path::new("gateway.toml")).unwrap();
        let problems = config.unknown_readers(["all-users", "developers", "staff"]);
        let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert!(
            messages[0].starts_with("gateway.toml:7:34: there is no group \"developerz\""),
            "{}",
            messages[0]
        );
        assert!(messages[0].contains("did you mean \"developers\"?"), "{}", messages[0]);
        assert!(messages[1].contains("permgate group create"), "{}", messages[1]);
        assert!(config.unknown_readers(["all-users", "STAFF", "developerz", "auditors"]).is_empty());
    }
}
