use http::Method;

use super::*;
use crate::authz::{
    fixture::{compile, service},
    path::RequestPath,
    rules::{Allowance, Disagreement},
};

#[test]
fn short_names_stand_for_long_ones() {
    let check = |path: &str, prefix: &str, expected: Option<&str>| {
        assert_eq!(expand(path, prefix).as_deref(), expected, "{path} and {prefix}");
        assert_eq!(rule::expand(path, prefix).as_deref(), expected, "{path} and {prefix} by the rule");
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

/// All long paths that a path may stand for.
fn expand_all(path: &str, prefixes: &[&str]) -> Vec<String> {
    let tree = Directories::of(prefixes.iter().copied());
    let found = tree.expand(path, &mut Work::default()).unwrap();
    let prefixes = found.iter().filter(|(directory, _)| directory.is_prefix);
    prefixes
        .map(|(directory, rest)| match *rest {
            "" => directory.path.to_string(),
            rest => format!("{}/{rest}", directory.path),
        })
        .collect()
}

fn expand(path: &str, prefix: &str) -> Option<String> {
    expand_all(path, &[prefix]).pop()
}

#[test]
fn tree_finds_what_the_rule_finds_for_each_prefix() {
    let long = [
        "administration",
        "administrator",
        "admin",
        "admin~1",
        "ad",
        "a",
        "a b",
        "+",
        ".git",
        "web.config",
        "web.conf",
        "v1.api.internal",
        "ab1234~1.ab+",
        "ab1234~1",
        "x~1.a.b",
        "a+b",
        "abcdef12.",
        "\u{e9}t\u{e9}",
    ];
    let short = [
        "ADMINI~1",
        "admini~23",
        "ADMINIS~1",
        "ad3F2C~1",
        "adadad~1",
        "a12ab~1",
        "12ab~1",
        "_12ab~1",
        "A~1",
        "AB~1",
        "~1",
        "GIT~1",
        "WEB~1.CON",
        "WEB~1.con",
        "V1API~1.INT",
        "V1API~1",
        "ab1234~1.ab+",
        "x~1.a.b",
        "A_B~1",
        "x~1",
        "\u{e9}t\u{e9}~1",
        "abcdef~1",
        "",
        "x",
    ];
    let deep =
        long.iter().flat_map(|one| ["administration", ".git", "a+b"].map(|two| format!("/{one}/{two}")));
    let prefixes: Vec<String> = long.map(|one| format!("/{one}")).into_iter().chain(deep).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let names: Vec<&str> = short.into_iter().chain(long).collect();
    let deep =
        names.iter().flat_map(|one| ["ADMINI~1", "GIT~1", "a+b", ""].map(|two| format!("/{one}/{two}")));
    let paths = names.iter().map(|one| format!("/{one}")).chain(deep);
    let tree = Directories::of(prefixes.iter().copied());
    for path in paths.flat_map(|path| [format!("{path}/"), format!("{path}/x//y"), path]) {
        let mut found = expand_all(&path, &prefixes);
        let mut expected: Vec<_> = prefixes.iter().filter_map(|prefix| rule::expand(&path, prefix)).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{path}");
        let parent = path.trim_end_matches('/');
        let reached = tree.expand(parent, &mut Work::default()).unwrap();
        let whole: Vec<_> = reached.iter().filter(|(_, rest)| rest.is_empty()).collect();
        for prefix in &prefixes {
            let above = |(directory, _): &&(&Directory, &str)| {
                prefix.strip_prefix(&*directory.path).is_some_and(|rest| rest.starts_with('/'))
            };
            let expected = rule::is_above(&format!("{parent}/"), prefix);
            assert_eq!(whole.iter().copied().any(|one| above(&one)), expected, "{path} above {prefix}");
        }
    }
}

/// What the path costs with 3,000 prefixes, or `None` if that is too much.
fn work(prefix: impl Fn(usize) -> String, path: &str) -> Option<u32> {
    let prefixes: Vec<String> = (0..3000).map(prefix).collect();
    let mut work = Work::default();
    let tree = Directories::of(prefixes.iter().map(String::as_str));
    tree.expand(path, &mut work).ok().map(|_| MAX_WORK - work.0)
}

#[test]
fn work_does_not_grow_with_the_number_of_prefixes() {
    let wide = |number: usize| format!("/files/service-{number}/area");
    assert_eq!(work(wide, "/files/REPORT~1/x"), Some(2));
    assert_eq!(work(wide, "/OTHER~1/SERVIC~1/x"), Some(1));
    assert_eq!(work(wide, "/files/SERVIC~1/x"), None);
    assert_eq!(work(|number| format!("/s{number}-administration/area"), "/S7-ADM~1/x"), Some(3));
}

#[test]
fn path_that_may_mean_too_many_directories_is_refused() {
    let check = |count: usize, path: &str, expected: Result<&str, Disagreement>| {
        let below =
            |number: usize| service(&format!("s{number}"), &[&format!("/administration-{number}/area")]);
        let rules =
            compile((0..count).map(below).chain([service("root", &["/"])]).collect(), vec![]).unwrap();
        let owner = rules.owner(&RequestPath::parse(path).unwrap(), None, &Method::GET);
        let owner = owner.map(|owner| owner.unwrap().service.spec.key.as_str());
        assert_eq!(owner, expected, "{count} {path}");
    };
    // In 64 readings.
    let hostile = "/ADMINI~1./q%C3%A9%5C%252F:$i%2F..x;a";
    check(12, hostile, Ok("root"));
    check(3000, hostile, Err(Disagreement::TooManyReadings));
    check(3000, &hostile.replace("ADMINI", "OTHERS"), Ok("root"));
    check(1000, "/ADMINI~1/x", Ok("root"));
}

/// The rule for one path and one prefix.
mod rule {
    use super::super::{is_own_short_name, kept};

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
}
