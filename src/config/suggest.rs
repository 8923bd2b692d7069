//! "Did you mean": finds the known word that is closest to a typo.

/// `None` if no word is close enough to be helpful.
pub fn closest<'w>(typo: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    const CLOSE: f64 = 0.75;
    /// The comparison takes as long as the product of both lengths.
    const LONGEST: usize = 200;
    if typo.len() > LONGEST {
        return None;
    }
    let typo = typo.to_lowercase();
    words
        .into_iter()
        .map(|word| {
            let folded = word.to_lowercase();
            let close = strsim::jaro_winkler(&typo, &folded);
            let edits = strsim::osa_distance(&typo, &folded);
            (word, if edits <= 2 && edits < folded.chars().count() { close.max(CLOSE) } else { close }, edits)
        })
        .filter(|(_, close, edits)| *close >= CLOSE && *edits <= typo.chars().count().max(3) / 2 + 1)
        .min_by_key(|(_, _, edits)| *edits)
        .map(|(word, ..)| word)
}

/// The word that was probably meant, else what else to do.
pub fn advice<'w>(
    typo: &str,
    words: impl IntoIterator<Item = &'w str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    closest(typo, words).map_or_else(otherwise, did_you_mean)
}

pub fn did_you_mean(word: &str) -> String {
    format!("did you mean {word:?}?")
}

/// Joins words as `"a", "b" or "c"`.
pub fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
