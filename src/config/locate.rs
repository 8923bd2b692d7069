//! Finds where a key is set, for problems that appear only once the whole configuration is known.

use std::ops::Range;

use toml::de::DeTable;

use super::{
    Config, Errors, Problem,
    document::{Document, References},
    environment::Overrides,
};

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
        let key = running.unreloadable_change(self)?;
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
}
