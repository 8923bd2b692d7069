//! Texts that are made to take long.

use std::time::{Duration, Instant};

use super::*;
use crate::config::check_text;

#[test]
fn a_text_with_very_many_mistakes_is_checked_at_once() {
    let check = |name: &str, text: String| {
        let started = Instant::now();
        let errors = check_text(&text, Path::new("gateway.toml")).unwrap_err().0;
        let taken = started.elapsed();
        assert!(taken < Duration::from_secs(10), "{name}: {taken:?}");
        assert_eq!(errors.len(), 1001, "{name}");
        assert!(errors[1000].message.contains("only the first ones"), "{name}: {}", errors[1000]);
    };
    let many = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<String>();
    check("unknown keys in one line", format!("server = {{{}z=1}}\n", many(8000, &|n| format!("a{n}=1,"))));
    check("lines that are not TOML", many(20_000, &|_| "%x=1\n".to_owned()));
    check("unknown keys", many(20_000, &|n| format!("a{n}=1\n")));
    let services = many(2000, &|n| format!("[service.s{n}]\nupstream = \"u\"\npaths = [\"/s{n}\"]\n"));
    let public = many(5000, &|n| format!("[[public]]\nservice = \"r{n}\"\npath = \"/\"\n"));
    check("unknown upstreams and services", format!("version = 1\n{services}{public}"));
    let addresses = many(5000, &|n| format!("\"u:p@{n}\","));
    check("addresses in one line", format!("version = 1\nserver.listen = [{addresses}]\n"));
    check(
        "a line of colons",
        format!("version = 1 # {}\n{}", ":'".repeat(200_000), many(1001, &|n| format!("a{n}=1\n"))),
    );
}

#[test]
fn messages_of_a_very_long_table_are_short() {
    let keys = (0..990).map(|n| format!("x{n} = 1\n")).collect::<String>();
    for name in ["s".repeat(400_000), format!("\"http://me:hunter{}@a\"", "x".repeat(400_000))] {
        let text = format!("version = 1\n[service.{name}]\n{keys}");
        let shown = check_text(&text, Path::new("gateway.toml")).unwrap_err().to_string();
        assert!(shown.len() < 4_000_000 && !shown.contains("hunter"), "{}", shown.len());
    }
}

#[test]
fn a_very_long_key_is_reported() {
    let errors = check_text(&format!("{} = 1\n", "a".repeat(1 << 20)), Path::new("gateway.toml"));
    assert!(errors.unwrap_err().to_string().contains("unknown key"));
}
