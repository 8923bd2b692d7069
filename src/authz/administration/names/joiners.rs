//! Checks the positions of the zero-width joiners U+200C and U+200D: as in RFC 5892, A.1 and A.2, and between
//! the parts of an emoji (Unicode Technical Standard 51). And of variation selectors, which choose among the
//! glyphs of an ideograph, a Mongolian letter or a sign.

use unicode_normalization::char::canonical_combining_class;

use crate::authz::accounts::is_joiner;

const NON_JOINER: char = '\u{200c}';
/// The combining class of a virama, which suppresses the vowel of the consonant before it.
const VIRAMA: u8 = 9;

/// Whether every joiner and variation selector of an NFC text has a meaning at its position.
pub(super) fn are_valid(text: &str) -> bool {
    joiners_are_valid(text) && selectors_are_valid(text)
}

fn joiners_are_valid(text: &str) -> bool {
    text.char_indices().filter(|(_, c)| is_joiner(*c)).all(|(at, joiner)| {
        let (before, after) = (&text[..at], &text[at + joiner.len_utf8()..]);
        if before.chars().next_back().is_some_and(|c| canonical_combining_class(c) == VIRAMA) {
            return true;
        }
        match joiner {
            NON_JOINER => {
                before.chars().rev().find(|c| !is_mark(*c)).is_some_and(is_cursive)
                    && after.chars().find(|c| !is_mark(*c)).is_some_and(is_cursive)
            }
            _ => {
                let base = before.chars().rev().find(|c| !is_emoji_modifier(*c));
                base.is_some_and(is_pictograph) && after.chars().next().is_some_and(is_pictograph)
            }
        }
    })
}

fn selectors_are_valid(text: &str) -> bool {
    text.char_indices().filter(|(_, c)| is_selector(*c)).all(|(at, selector)| {
        let after = &text[at + selector.len_utf8()..];
        text[..at].chars().next_back().is_some_and(|base| has_variations(base) || after.starts_with(KEYCAP))
    })
}

/// The mark that makes a keycap of a digit and U+FE0F.
const KEYCAP: char = '\u{20e3}';

fn is_selector(c: char) -> bool {
    matches!(c, '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Whether Unicode may define variations of the character. Among letters, of the scripts that have any.
fn has_variations(c: char) -> bool {
    let ideograph =
        matches!(c, '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}');
    let letter = matches!(c, '\u{1000}'..='\u{109f}' | '\u{1820}'..='\u{18aa}' | '\u{a840}'..='\u{a873}' | '\u{aa60}'..='\u{aa7f}');
    let sign = !c.is_alphanumeric() && !c.is_ascii() && !c.is_whitespace() && !is_selector(c) && !is_mark(c);
    ideograph || letter || sign
}

fn is_mark(c: char) -> bool {
    canonical_combining_class(c) != 0
}

/// Whether this is a letter of a script whose letters join. Includes those that join only to the right: a
/// non-joiner after them has no effect, but is common in texts.
fn is_cursive(c: char) -> bool {
    c.is_alphabetic()
        && matches!(c,
            // Arabic, Syriac, N'Ko, Mandaic, Arabic Extended.
            '\u{620}'..='\u{8ff}'
            // Mongolian, Phags-pa.
            | '\u{1820}'..='\u{18aa}' | '\u{a840}'..='\u{a873}'
            // Arabic Presentation Forms.
            | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}'
            // Manichaean, Psalter Pahlavi, Hanifi Rohingya, Sogdian, Chorasmian.
            | '\u{10ac0}'..='\u{10aef}' | '\u{10b80}'..='\u{10baf}' | '\u{10d00}'..='\u{10d3f}'
            | '\u{10f30}'..='\u{10f6f}' | '\u{10fb0}'..='\u{10fdf}'
            // Adlam.
            | '\u{1e900}'..='\u{1e943}')
}

/// Whether this is the presentation selector or a skin tone, which may be between a pictograph and a joiner.
fn is_emoji_modifier(c: char) -> bool {
    matches!(c, '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}')
}

/// Whether this is in a block of which emoji sequences are made.
fn is_pictograph(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{21ff}' | '\u{2600}'..='\u{27bf}' | '\u{2b00}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joiners_stand_where_they_have_a_meaning() {
        let check = |name: &str, text: &str, expected: bool| assert_eq!(are_valid(text), expected, "{name}");
        check("none", "build", true);
        check("Persian", "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}", true);
        check("Persian, after a mark", "\u{645}\u{64e}\u{200c}\u{62e}", true);
        check("Persian, after a letter that joins to the right", "\u{631}\u{200c}\u{647}", true);
        check("Sinhala", "\u{0dc1}\u{0dca}\u{200d}\u{0dbb}\u{0dd3}", true);
        check("Devanagari, not joined", "\u{915}\u{94d}\u{200c}\u{937}", true);
        check("a family", "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}", true);
        check("a tone", "\u{1f469}\u{1f3fd}\u{200d}\u{1f52c}", true);
        check("a flag", "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}", true);
        check("Latin", "a\u{200c}b", false);
        check("Latin, joined", "a\u{200d}b", false);
        check("Persian, joined", "\u{645}\u{200d}\u{62e}", false);
        check("first", "\u{200c}\u{62e}", false);
        check("last", "\u{62e}\u{200c}", false);
        check("two", "\u{645}\u{200c}\u{200c}\u{62e}", false);
        check("before a space", "\u{645}\u{200c} \u{62e}", false);
        check("after a digit", "1\u{200c}\u{62e}", false);
        check("half an emoji", "\u{1f468}\u{200d}", false);
        check("a red heart", "\u{2764}\u{fe0f}", true);
        check("a keycap", "1\u{fe0f}\u{20e3}", true);
        check("a variant of an ideograph", "\u{845b}\u{e0100}", true);
        check("a Mongolian variant", "\u{1820}\u{180b}", true);
        check("a selector after a Latin letter", "a\u{fe0e}", false);
        check("after a Latin letter, another one", "a\u{e0100}", false);
        check("after a digit", "1\u{fe0f}", false);
        check("after a space", " \u{fe0f}", false);
        check("first", "\u{fe0f}a", false);
        check("two", "\u{2764}\u{fe0f}\u{fe0f}", false);
        check("after a mark", "a\u{301}\u{301}\u{fe0f}", false);
    }
}
