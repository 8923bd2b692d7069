//! Warns about readers that are not groups. Groups are in the store, so the check needs both. An unknown name
//! is no error, since the group may be created later; until then it has no effect.

use super::{Config, Problem, suggest::advice};
use crate::authz::accounts::fold;

impl Config {
    /// Returns a warning for each name in `readers` that is not in `groups`.
    pub fn unknown_readers<'g>(&self, groups: impl IntoIterator<Item = &'g str>) -> Vec<Problem> {
        let groups: Vec<&str> = groups.into_iter().collect();
        let known = |name: &str| groups.iter().any(|group| fold(group) == fold(name));
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
                    None => self.problem_at(service.origin.line, name, message, advice),
                });
            }
        }
        problems
    }

    /// A problem at a quoted word, on or below a line.
    fn problem_at(&self, line: u32, word: &str, message: String, advice: String) -> Problem {
        let quoted = format!("{word:?}");
        let file = self.file.display().to_string().into();
        let first = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
        let found = self
            .text
            .lines()
            .enumerate()
            .skip(first)
            .find_map(|(index, text)| Some((index, text, text.find(&quoted)?)));
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        match found {
            Some((index, text, at)) => Problem {
                file,
                line: count(index + 1),
                column: count(text[..at].chars().count() + 1),
                excerpt: text.to_owned(),
                width: count(quoted.chars().count()),
                message,
                advice,
            },
            None => Problem { file, line: 0, column: 0, excerpt: String::new(), width: 0, message, advice },
        }
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
