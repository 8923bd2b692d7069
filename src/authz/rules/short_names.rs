//! The short names (8.3) by which Windows also finds files and directories with long names: `/ADMINI~1` is
//! `/administration`.

/// Reads the beginning of a path as the short form of a prefix in lower case, and returns the path with the
/// prefix in its place. `None` if no segment is a short name of the prefix's, or another one differs.
pub fn expand(path: &str, prefix: &str) -> Option<String> {
    let (mut rest, mut shortened) = (path.strip_prefix('/')?, false);
    for long in prefix.strip_prefix('/')?.split('/') {
        let (segment, following) = rest.split_once('/').unwrap_or((rest, ""));
        if !segment.eq_ignore_ascii_case(long) {
            if !is_short_name(segment, long) {
                return None;
            }
            shortened = true;
        }
        rest = following;
    }
    shortened.then(|| if rest.is_empty() { prefix.to_owned() } else { format!("{prefix}/{rest}") })
}

/// Whether a path ending with a slash is the short form of a directory above a prefix in lower case.
pub fn is_above(path: &str, prefix: &str) -> bool {
    let directories = prefix.match_indices('/').map(|(end, _)| &prefix[..end]);
    directories.skip(1).any(|directory| expand(path, directory).as_deref() == Some(directory))
}

/// Whether NTFS may have made `short` for a file named `long`, which is in lower case: up to six characters
/// of the name, or two and four digits of a hash, then `~` and a number, then up to three characters of the
/// extension.
fn is_short_name(short: &str, long: &str) -> bool {
    let (base, extension) = short.split_once('.').unwrap_or((short, ""));
    let Some((begin, number)) = base.split_once('~') else { return false };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || base.len() > 8 || is_own_short_name(long) {
        return false;
    }
    // It leaves out spaces and all dots but the last one.
    let long = long.trim_start_matches(['.', ' ']);
    let (name, long_extension) = long.rsplit_once('.').unwrap_or((long, ""));
    let name: Vec<u8> = name.bytes().filter(|byte| !matches!(byte, b'.' | b' ')).map(kept).collect();
    let begin = begin.to_ascii_lowercase().into_bytes();
    let is_hashed = |digits: &[u8]| digits.len() == 4 && digits.iter().all(u8::is_ascii_hexdigit);
    let hashed = begin.split_at_checked(name.len().min(2));
    !begin.is_empty()
        && (name.starts_with(&begin)
            || hashed.is_some_and(|(two, hash)| name.starts_with(two) && is_hashed(hash)))
        && extension.len() == long_extension.len().min(3)
        && long_extension.as_bytes()[..extension.len()].eq_ignore_ascii_case(extension.as_bytes())
}

/// Whether a name is its own short name.
fn is_own_short_name(long: &str) -> bool {
    let (name, extension) = long.split_once('.').unwrap_or((long, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| kept(byte) == byte && !matches!(byte, b'.' | b' '));
    (1..=8).contains(&name.len()) && extension.len() <= 3 && is_plain(name) && is_plain(extension)
}

/// The character that a short name has in the place of this one.
fn kept(byte: u8) -> u8 {
    if matches!(byte, b'+' | b',' | b';' | b'=' | b'[' | b']') { b'_' } else { byte }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::authz::{
        fixture::{compile, service},
        path::RequestPath,
        rules::Allowance,
    };

    #[test]
    fn short_names_stand_for_long_ones() {
        let check = |path: &str, prefix: &str, expected: Option<&str>| {
            assert_eq!(expand(path, prefix).as_deref(), expected, "{path} and {prefix}");
        };
        check("/ADMINI~1/users", "/administration", Some("/administration/users"));
        check("/admin~12", "/administration", Some("/administration"));
        check("/ad3F2C~1/x", "/administration", Some("/administration/x"));
        check("/a/INTERN~1/x/", "/a/internal-api", Some("/a/internal-api/x/"));
        check("/PROGRA~1/INTERN~2", "/program files/internal-api", Some("/program files/internal-api"));
        check("/progra~1", "/program files", Some("/program files"));
        check("/GIT~1/config", "/.git", Some("/.git/config"));
        check("/WEB~1.CON", "/web.config", Some("/web.config"));
        check("/A_B~1", "/a+b", Some("/a+b"));
        check("/V1API~1", "/v1.api.internal", None);
        check("/V1API~1.INT", "/v1.api.internal", Some("/v1.api.internal"));
        check("/administration/users", "/administration", None);
        check("/ADMIN~1", "/admin", None);
        check("/OTHER~1", "/administration", None);
        check("/ADMINI~x", "/administration", None);
        check("/~1", "/administration", None);
        check("/ADMINIS~1", "/administration", None);
        check("/ADMINI~1.2", "/administration", None);
        check("/a", "/administration", None);
        check("/a~1.abc", "/administration.\u{e9}\u{e9}", None);
        check("/é~1", "/administration", None);
        check("/ad\u{e9}\u{e9}~1", "/administration", None);
    }
    #[test]
    fn short_name_of_another_services_prefix_is_ambiguous() {
        let check = |path: &str, allow: &[Allowance], expected: Result<&str, ()>| {
            let mut root = service("root", &["/"]);
            root.allow = allow.to_vec();
            let rules = compile(vec![root, service("internal", &["/files/internal-api"])], vec![]).unwrap();
            let owner = rules.owner(&RequestPath::parse(path).unwrap(), None, &Method::GET);
            let owner = owner.map(|owner| owner.unwrap().service.spec.key.as_str()).map_err(drop);
            assert_eq!(owner, expected, "{path}");
        };
        check("/files/INTERN~1/x", &[], Err(()));
        check("/FILES/intern~1", &[], Err(()));
        check("/files/intern%7E1/x", &[], Err(()));
        check("/files/in0af3~1", &[], Err(()));
        check("/files/report~1/x", &[], Ok("root"));
        check("/files/internal-api/intern~1", &[], Ok("internal"));
        // A file system that tells capitals apart has no short names.
        check("/files/INTERN~1/x", &[Allowance::LetterCase], Ok("root"));
    }
}
