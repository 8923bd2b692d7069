//! Plain words for codes.

/// A line for each code.
const REASONS: &str = include_str!("reasons.txt");

/// The reason of a refusal, as a phrase within a sentence.
pub fn reason(code: &str) -> &str {
    let known = REASONS.lines().find_map(|line| line.strip_prefix(code)?.strip_prefix(": "));
    known.unwrap_or(code)
}

/// The colour of a state's chip.
pub fn state_tone(state: &str) -> &'static str {
    match state {
        "active" => "good",
        "pending" => "info",
        "rotating" => "warn",
        _ => "bad",
    }
}

/// `1 token`, `2 tokens`.
pub fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use strum::VariantArray as _;

    use crate::authz::reason::Reason;

    #[test]
    fn every_reason_of_a_refusal_has_words() {
        let fine = [Reason::Ok, Reason::OkAnonymous, Reason::Answered];
        for reason in Reason::VARIANTS.iter().filter(|reason| !fine.contains(reason)) {
            assert_ne!(super::reason(reason.code()), reason.code());
        }
    }
}
