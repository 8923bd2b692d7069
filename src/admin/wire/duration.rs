//! Durations as people write them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, schema::Type},
};

use crate::authz::time::Timestamp;

/// `"90d"`, `"12h"`, `"30m"`, `"45s"`, `"2w"`, or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl PartialSchema for HumanDuration {
    fn schema() -> RefOr<Schema> {
        let word = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]{1,9}[smhdw]?$"));
        let word = word.examples([json!("90d")]);
        let seconds =
            ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX));
        let text = "A number without a unit counts seconds.";
        OneOfBuilder::new().item(word).item(seconds).description(Some(text)).into()
    }
}

impl ToSchema for HumanDuration {}

impl HumanDuration {
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            _ => return None,
        };
        // The expiry of a longer one could not be represented as a date.
        let seconds = digits.parse::<u32>().ok()?.checked_mul(unit)?;
        Some(Self(Duration::from_secs(seconds.into())))
    }

    pub fn after(self, time: Timestamp) -> Timestamp {
        time.plus_seconds(i64::try_from(self.0.as_secs()).unwrap_or(i64::MAX))
    }

    pub fn before(self, time: Timestamp) -> Timestamp {
        time.plus_seconds(i64::try_from(self.0.as_secs()).map_or(i64::MIN, |seconds| -seconds))
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = HumanDuration;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration as \"90d\" or \"12h\", or seconds")
            }
            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<HumanDuration, E> {
                let seconds =
                    u32::try_from(seconds).map_err(|_| E::custom("a duration of over 136 years"))?;
                Ok(HumanDuration(Duration::from_secs(seconds.into())))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
                HumanDuration::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_words_or_seconds() {
        fn check(json: &str, expected: Option<u64>) {
            let span = serde_json::from_str::<HumanDuration>(json).ok().map(|span| span.0.as_secs());
            assert_eq!(span, expected, "{json}");
        }
        check("\"90d\"", Some(90 * 86_400));
        check("\"12h\"", Some(12 * 3_600));
        check("\"2w\"", Some(14 * 86_400));
        check("\"30m\"", Some(1_800));
        check("\"45s\"", Some(45));
        check("\"45\"", Some(45));
        check("3600", Some(3_600));
        check("0", Some(0));
        check("-1", None);
        check("1.5", None);
        check("\"\"", None);
        check("\"d\"", None);
        check("\"1 d\"", None);
        check("\"9d9h\"", None);
        check("\"99999999999d\"", None);
        check("\"999999999w\"", None);
        check("\"ééé\"", None);
        check("99999999999", None);
    }
}
