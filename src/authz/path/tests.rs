use super::*;
use crate::authz::fixture::cpu_time;

#[test]
fn refused_whatever_the_service() {
    let check = |path: &str, expected: PathError| {
        assert_eq!(RequestPath::parse(path).err(), Some(expected), "{path:?}");
    };
    for path in ["", "api", "*", "?x", "http://h/api"] {
        check(path, PathError::NotAbsolute);
    }
    for byte in (0..=0x20u8).chain(*b"\\#?\"<>`\x7f") {
        check(&format!("/a{}b", char::from(byte)), PathError::Byte(byte));
    }
    check("/é", PathError::Byte(0xc3));
    for path in ["/%", "/%z", "/%zz", "/%2", "/a%2/b", "/%u002e/x", "/%-1", "/%%32e"] {
        check(path, PathError::Escape);
    }
    for path in [
        "/%00",
        "/a%0d%0aX",
        "/%09",
        "/%7F",
        "/%1f",
        "/%C2%85",
        "/a%2500",
        "/a%252500b",
        "/%85",
        "/%ed%a0%80",
        "/%9f",
    ] {
        check(path, PathError::Control);
    }
    for path in
        ["/%c0%ae%c0%ae/x", "/%c0%af", "/%c1%a8", "/%e0%80%ae", "/%e0%9f%bf", "/%f0%80%80%ae", "/%ff%c0%80"]
    {
        check(path, PathError::Utf8);
    }
    check(&format!("/{}", "%25".repeat(5000) + &"%2f;/../%ef%bc%8f".repeat(4000)), PathError::DotSegment);
}

#[test]
fn a_dot_segment_in_any_reading_is_refused() {
    let dots = [
        "..",
        "...",
        "./..",
        ".%2f.",
        "./%2e",
        "%2f.%2f",
        ".;/.",
        "%2e",
        ".%e2%80%a8",
        "..%e2%80%a8",
        "..%e2%80%a9",
        "%e2%80%8e..",
        ".%e2%80%af.",
        "..%e3%80%80",
        "..%e1%9a%80",
        "..%ef%bb%bf",
        "%f3%a0%80%81..",
        "..%d8%9c",
        "..%e2%81%a5",
        "%c2%ad.%c2%ad.",
        "..%25e2%2580%25a8",
        "%ef%bc%8e%e2%80%a8%ef%bc%8e",
        "..%ff",
        "%e9%2f..",
        "..%a0",
        ".%ad.",
        "%2e",
        "%2E%2e",
        ".%2e",
        "%252e%252E",
        "%25252e.",
        "..;",
        ".;a=b",
        "..;/",
        "..%3b",
        "..%253bx",
        "%2e%2e;x",
        "..%20",
        ".%20.",
        "..%2520",
        "%20..",
        "..%c2%a0",
        "..+",
        "a%2f..",
        "a%2f..%2fb",
        "..%2fb",
        "..%5cb",
        "a%5c..",
        "a%5C..%5Cb",
        "a%252f..%252fb",
        "%252e%252e%252f",
        "..%255c",
        "%ef%bc%8e%ef%bc%8e",
        "%EF%BC%8E.",
        "%E2%80%A4.",
        "%e2%80%a5",
        "%e2%80%a6",
        "..%ef%bc%8fb",
        "..%e2%88%95b",
        "..%e2%81%84b",
        "..%EF%BC%BCb",
        "a%E2%88%96..%E2%88%96",
        "..%EF%BC%9Bx",
        "%25c0%25ae%25c0%25ae",
        "a%25c0%25af..",
        "%25u002e%25u002e",
        "%ef%bc%852e.",
        ".%e2%80%8b.",
        "%25%32%65.",
        "..%250a",
        "..%2509",
        "%EF%B9%92.",
        "%e3%80%82.",
        "..%3f",
        "..%23x",
        "%2e%252e",
        "x;%2f..",
        "..;;;",
        ".;.",
    ];
    for dot in dots {
        for path in [format!("/{dot}"), format!("/api/{dot}/hub"), format!("//a;b/{dot}/%20")] {
            assert_eq!(RequestPath::parse(&path).err(), Some(PathError::DotSegment), "{path}");
        }
    }
}

#[test]
fn everything_else_passes_untouched() {
    let plain = [
        "/",
        "/api",
        "/api/",
        "/API/x.json",
        "/.well-known/x",
        "/..x",
        "/a..b",
        "/x.tar.gz",
        "/~u/@me:1",
        "/!$&'()*,=",
        "/(a)/b(S(x))",
        "/(S(x/y",
        "/(S(x/y))",
        "/(s(x))",
        "/C++x",
        "/a.b+c",
        "/.hidden",
        "/a[1].txt",
        "/a|b",
        "/{id}",
        "/^x",
    ];
    for path in plain {
        let parsed = RequestPath::parse(path).unwrap();
        assert_eq!((parsed.literal(), parsed.readings().len()), (path, 0), "{path}");
    }
    let suspicious = [
        "/npm/@scope%2fname",
        "/api/projects/a%2Fb",
        "/wiki/%D0%9F..",
        "/a;v=1/b",
        "/x%20y",
        "/100%25",
        "/a//b",
        "//a",
        "/a/b;",
        "/a;",
        "/C++",
        "/Dr.",
        "/%7euser",
        "/50%25%20off",
        "/100%25able",
        "/discount50%2510off",
        "/%E2%80%A6x",
        "/%C2%BD",
        "/a%252Fb",
        "/a%20",
        "/%20",
        "/x/;y",
        "/%3Fx",
        "/%E3%81%82%E3%80%82",
        "/a;v=1/b%20c%2Fd//e.%3Fx",
        "/debian/./Packages",
        "/./x",
        "/a/.",
        "/.",
        "/caf%E9",
        "/%ff",
        "/%D0",
        "/%C3%A9%E9",
        "/a%E2%80%A8b",
        "/jar:file%3A%2F%2Fx",
        "/https%3A%2F%2Fexample.org%2Fa%3Fb=c%23d",
    ];
    for path in suspicious {
        let parsed = RequestPath::parse(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(parsed.literal(), path);
        assert!(!parsed.readings().is_empty(), "{path}");
    }
}

#[test]
fn readings_combine() {
    let check = |path: &str, reading: &str| {
        let parsed = RequestPath::parse(path).unwrap();
        let texts: Vec<_> = parsed.readings().iter().map(Reading::text).collect();
        assert!(texts.contains(&reading), "{path}: {reading} is not among {texts:?}");
    };
    check("/a%2fb", "/a/b");
    check("/a%5cb", "/a/b");
    check("/a%252fb", "/a/b");
    check("/a%25252fb", "/a/b");
    check("/%61pi", "/api");
    check("/%2561pi", "/api");
    check("/a//b", "/a/b");
    check("/a;x/b", "/a/b");
    check("/a;x%2fb", "/a/b");
    check("/a;%2Fb;c", "/a/b");
    check("/a%3bx/b", "/a/b");
    check("/%2f%2561;x%5cb", "/a/b");
    check("/a/%ef%bd%81%ef%bd%90%ef%bd%89", "/a/api");
    check("/a./b%20/c", "/a/b/c");
    check("/a+/b", "/a/b");
    check("/%20api", "/api");
    check("/a/%20%20b%20/c", "/a/b/c");
    check("/%C3%A2p%C3%AC", "/api");
    check("/a%CC%81pi", "/api");
    check("/a::$DATA/b", "/a/b");
    check("/a:$i30:$INDEX_ALLOCATION/b", "/a/b");
    check("/a%3a%24i30%3A$INDEX_ALLOCATION/b", "/a/b");
    check("/%c2%a5a", "//a");
    check("/%e2%82%a9a", "//a");
    check("/%ef%bf%a5a/b", "/a/b");
    check("/a%3fx/b", "/a");
    check("/a%23x/b", "/a");
    check("//host/b", "/b");
    check("///host/b", "/b");
    check("/%2f//host/b", "/b");
    check("///a//b", "/a//b");
    check("/a../b", "/b");
    check("/x/a.%2E/b", "/x/b");
    check("/a..", "/");
    check("/(S(x))/b", "/b");
    check("/(S(x))b", "/b");
    check("/a/(F(x)S(y))/b", "/a/b");
    check("/a/(S(x))b/(S(x))/c", "/ab/c");
    check("/a/(S(x))b/(S(x))/c", "/a/(S(x))b/c");
    check("/%28S(x%29)/b", "/b");
    check("/(S(x))", "/");
    check("/a%ef%bc%8fb", "/a/b");
    check("/a%e2%88%95b", "/a/b");
    check("/%C5%BFervice", "/service");
    check("/ap%C4%B1", "/apI");
    check("/ap%C2%ADi", "/api");
    check("/ap%E2%80%A8i", "/api");
    check("/a/./b", "/a/b");
    check("/./a/././b", "/a/b");
    check("/a/.", "/a/");
    check("/a/.", "/a");
    check("/./a%2fb", "/a/b");
    check("/./a%2fb", "/./a/b");
    check("/caf%E9", "/caf\u{e9}");
    check("/ap%FFi", "/api");
    check("/ap%FFi", "/ap\u{ff}i");
    check("/ap%25FFi", "/api");
}

#[test]
fn a_path_says_whether_it_is_utf8() {
    let check = |path: &str, utf8: bool| {
        assert_eq!(RequestPath::parse(path).unwrap().is_utf8(), utf8, "{path}");
    };
    check("/a", true);
    check("/caf%C3%A9", true);
    check("/caf%E9", false);
    check("/%C3%A9/%E9", false);
    check("/%C0", false);
    check("/caf%25E9", true);
}

#[test]
fn what_was_refused_is_named() {
    let check = |path: &str, named: &str| {
        let message = RequestPath::parse(path).unwrap_err().to_string();
        assert!(message.contains(named), "{path}: {message}");
    };
    check("/a<b", "\"<\", which has to be written as %3C");
    check("/a\"b", "%22");
    check("/a b", "%20");
    check("/a`b", "%60");
    check("/a\\b", "%5C");
    check("/é", "beyond ASCII");
    check("/a%zz", "two hexadecimal digits");
    check("/a/../b", "\"..\" segment");
}

#[test]
fn the_work_for_a_hostile_path_is_bounded() {
    let hostile = ["%25", "%252525252f", "//", ";a%2f", "a.%20/", "%ef%bc%8f;x/", "%3f%5c//;a./", "%2541"];
    for unit in hostile {
        let path = format!("/{}", unit.repeat(16_000 / unit.len()));
        if let Ok(parsed) = RequestPath::parse(&path) {
            let total: usize = parsed.readings().iter().map(|r| r.text().len()).sum();
            assert!(total <= (24 << 10).max(3 * path.len()), "{unit}: {total}");
        }
    }
}

#[test]
fn looking_for_sessions_is_linear() {
    let check = |path: &str, expected: Result<usize, PathError>| {
        let begun = cpu_time();
        let readings = RequestPath::parse(path).map(|parsed| parsed.readings().len());
        assert_eq!(readings, expected, "{}", &path[..20]);
        // If each `/(` searched the whole path, it would be seconds.
        let took = cpu_time() - begun;
        assert!(took.as_millis() < 1000, "{}: {took:?}", &path[..20]);
    };
    let many = 20_000;
    check(&format!("{}){}", "/(A(".repeat(many), "A()".repeat(many)), Ok(0));
    check(&format!("{}){}/%41", "/(A(".repeat(many), "A()".repeat(many)), Ok(1));
    check(&"/(A(".repeat(many), Ok(0));
    check(&"/(A())".repeat(many), Err(PathError::TooManyReadings));
    check(&"/(A())".repeat(6), Ok(6));
    check(&"/(A())".repeat(7), Err(PathError::TooManyReadings));
}
