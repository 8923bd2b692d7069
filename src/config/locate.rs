//! Finds where a key is set, for problems that appear only once the whole configuration is known. One is a
//! reader that is not a group: groups are in the store, so an unknown name is no error, since the group may
//! be created later.

use std::{collections::HashSet, ops::Range};

use toml::de::DeTable;

use super::{
    Config, Errors, Problem,
    document::{Document, References},
    environment::Overrides,
    suggest::advice,
};
use crate::authz::accounts::fold;

impl Config {
    /// A problem with a key, such as `log.access`, at the place where the key is set.
    pub fn problem_at_key(&self, key: &str, message: String, advice: &str) -> Problem {
        if let Some((variable, line)) = self.variable_setting(key) {
            let excerpt = line.to_owned();
            let width = u32::try_from(line.chars().count()).unwrap_or(u32::MAX);
            let (file, advice) = (variable.into(), advice.to_owned());
            return Problem { file, line: 1, column: 1, excerpt, width, message, advice };
        }
        self.problem_at_span(self.span_of(key), message, advice)
    }

    /// A problem of the whole file.
    pub fn problem(&self, message: String) -> Problem {
        self.problem_at_span(None, message, "")
    }

    /// A problem at a span of the text; `None`: of the whole file.
    pub(super) fn problem_at_span(
        &self,
        span: Option<Range<usize>>,
        message: String,
        advice: &str,
    ) -> Problem {
        let Some(span) = span else {
            return Errors::in_file(&self.file.display().to_string(), message, advice).0.remove(0);
        };
        let overrides = Overrides::default();
        let document = Document::new(&self.file, &self.text, &overrides, References::Ignored);
        document.warn(&span, message, advice);
        document.into_diagnostics().warnings.remove(0)
    }

    /// A warning if a reload would refuse this configuration while `running` is in force.
    pub fn restart_warning(&self, running: &Self) -> Option<Problem> {
        let key = running.unreloadable_change(self).or_else(|| running.switched_tls(self))?;
        let message = format!("`{key}` differs from the running gateway's: a reload cannot change it");
        Some(self.problem_at_key(key, message, "restart permgate"))
    }

    /// The variable that sets a key, and its setting as a line of the file.
    pub(super) fn variable_setting(&self, key: &str) -> Option<(&str, &str)> {
        let folded = key.replace('-', "_");
        let set = self.environment.iter().filter_map(|line| line.split_once(" sets "));
        set.into_iter().find(|(_, line)| line.split(" = ").next() == Some(&folded))
    }

    fn span_of(&self, key: &str) -> Option<Range<usize>> {
        let (root, _) = DeTable::parse_recoverable(&self.text);
        let mut table = root.get_ref();
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            let (name, value) = table.iter().find(|(name, _)| name.get_ref() == part)?;
            if parts.peek().is_none() {
                return Some(name.span());
            }
            table = value.get_ref().as_table()?;
        }
        None
    }
}

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

    use crate::config::parse;

    #[test]
    fn a_key_is_found_where_it_is_set() {
        let parsed = |text: &str| parse(text, Path::new("gateway.toml")).unwrap();
        let before = parsed("version = 1\n");
        let check = |text: &str, expected: Option<&str>| {
            let problem = parsed(&format!("version = 1\n{text}")).restart_warning(&before);
            let shown = problem.map(|problem| problem.to_string());
            let first = shown.as_deref().and_then(|shown| shown.lines().next());
            assert_eq!(first, expected, "{text}");
        };
        let message = "differs from the running gateway's: a reload cannot change it";
        check("[log]\nlevel = \"warn\"\n", None);
        let expected = format!("gateway.toml:3:1: `store.path` {message}");
        check("[store]\npath = \"elsewhere\"\n", Some(&expected));
        let expected = format!("gateway.toml:2:8: `server.workers` {message}");
        check("server.workers = 3\n", Some(&expected));
    }

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
