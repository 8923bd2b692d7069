//! `fields=id,name,scope(id,name)`: the members that a client selects from a response.

use serde_json::{Map, Value};

use super::super::{ApiResult, Problem};

/// The selected members; empty selects all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSelection(Vec<(String, FieldSelection)>);

/// Nesting limit; it bounds the recursion. Real scripts stay well below it.
const DEPTH: usize = 8;
/// The most names, since each is looked up in every item. No answer has as many members.
const MAX_NAMES: usize = 100;

impl FieldSelection {
    pub(super) fn parse(text: Option<&str>) -> ApiResult<Self> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::default()) };
        let mut rest = text;
        let few = text.split([',', '(']).take(MAX_NAMES + 1).count() <= MAX_NAMES;
        let fields = Self::list(&mut rest, DEPTH).filter(|_| rest.is_empty() && few);
        fields.ok_or_else(|| {
            let text = format!("fields takes names, at most {MAX_NAMES}, such as id,name,scope(id,name)");
            Problem::invalid(text)
        })
    }

    fn list(rest: &mut &str, depth: usize) -> Option<Self> {
        let mut fields = Vec::new();
        loop {
            let end = rest.find([',', '(', ')']).unwrap_or(rest.len());
            let name = rest[..end].trim();
            let sound = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !sound || depth == 0 {
                return None;
            }
            *rest = &rest[end..];
            let mut inner = Self::default();
            if let Some(behind) = rest.strip_prefix('(') {
                *rest = behind;
                inner = Self::list(rest, depth - 1)?;
                *rest = rest.strip_prefix(')')?;
            }
            fields.push((name.to_owned(), inner));
            match rest.strip_prefix(',') {
                Some(behind) => *rest = behind,
                None => return Some(Self(fields)),
            }
        }
    }

    /// Keeps the selected members; unknown names are ignored, as Hub does.
    pub(super) fn pick(&self, value: Value) -> Value {
        match value {
            Value::Object(mut members) if !self.0.is_empty() => {
                let picked = self.0.iter().filter_map(|(name, inner)| {
                    members.remove(name).map(|value| (name.clone(), inner.pick(value)))
                });
                Value::Object(picked.collect::<Map<_, _>>())
            }
            Value::Array(items) => items.into_iter().map(|item| self.pick(item)).collect(),
            other => other,
        }
    }

    /// The selection for a page's items: nested under the list's name, as in Hub, or given directly.
    pub(super) fn of_items(&self, items: &str) -> &Self {
        self.0.iter().find(|(name, _)| name == items).map_or(self, |(_, inner)| inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_asked_for_is_picked() {
        let token =
            || json!({"id": "1", "name": "ci", "scope": [{"id": "a", "name": "A"}], "user": {"id": "u"}});
        let check = |fields: &str, expected: Option<Value>| {
            let picked = FieldSelection::parse(Some(fields)).ok().map(|fields| fields.pick(token()));
            assert_eq!(picked, expected, "{fields}");
        };
        check("", Some(token()));
        check("id", Some(json!({"id": "1"})));
        check("id, name", Some(json!({"id": "1", "name": "ci"})));
        check("scope(id)", Some(json!({"scope": [{"id": "a"}]})));
        check("scope", Some(json!({"scope": [{"id": "a", "name": "A"}]})));
        check(
            "id,scope(id,name),user(id)",
            Some(json!({"id": "1", "scope": [{"id": "a", "name": "A"}], "user": {"id": "u"}})),
        );
        check("nothing", Some(json!({})));
        check("id,,name", None);
        check("id)", None);
        check("scope(id", None);
        check("scope()", None);
        check("a/b", None);
        check(&"a(".repeat(10_000), None);
        check(&["id"; MAX_NAMES].join(","), Some(json!({"id": "1"})));
        check(&["id"; MAX_NAMES + 1].join(","), None);
        check(&format!("{},user({})", ["id"; 50].join(","), ["id"; 50].join(",")), None);
    }
}
