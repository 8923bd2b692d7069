//! Requests that real clients send pass unchanged, byte for byte.

use crate::stage::Stage;

/// Paths below a service's prefix, all with the same owner.
const PATHS: [&str; 115] = [
    "",
    "/",
    "/issues",
    "/issues/",
    "/issues/DEMO-1",
    "/issues/2-17",
    "/v1.2/file.tar.gz",
    "/..foo",
    "/foo..",
    "/a..b",
    "/.well-known/openid-configuration",
    "/.hidden",
    "/.git/config",
    "/a/.hidden/b",
    "/file.",
    "/J.R.R.",
    "/Dr.",
    "/a.b.c.",
    "/~user",
    "/@scope/name",
    "/@scope%2fname",
    "/@scope%2Fname",
    "/@types%2fnode/-/node-18.0.0.tgz",
    "/projects/group%2Fsub%2Fproject/issues",
    "/projects/group%2Fproject/repository/files/src%2Fmain%2Elib.rs/raw",
    "/a%2Fb%2Fc",
    "/a%5Cb",
    "/users/john@example.com",
    "/users/john%40example.com",
    "/users/me:rename",
    "/v1/projects/p/locations/l:search",
    "/urn:isbn:0451450523",
    "/ipv6:%5B::1%5D",
    "/C++",
    "/C++/x",
    "/a+b",
    "/a+",
    "/c%2B%2B",
    "/C%23",
    "/F%23/x",
    "/what%3F",
    "/100%25",
    "/50%25%20off",
    "/100%25able",
    "/%25",
    "/a%252Fb",
    "/a%20b",
    "/a%20",
    "/%20a",
    "/a%20/b",
    "/!$&'()*,=",
    "/a!b",
    "/$metadata",
    "/Customers('ALFKI')",
    "/Customers(1)/Orders",
    "/Products(guid'7b8d3c1e-0000-4000-8000-000000000000')",
    "/a,b,c",
    "/key=value",
    "/a&b",
    "/(x)",
    "/it's",
    "/*",
    "/a*b",
    "/a;b",
    "/a;v=1.1",
    "/a;x=1;y=2/b;z=3",
    "/map;lat=50;long=20;scale=32000",
    "/;jsessionid=1A2B3C",
    "/x;jsessionid=1A2B3C.node0",
    "/a;",
    "/a;/b",
    "//",
    "/a//b",
    "/a///b",
    "/a/b//",
    "//a",
    "/https://example.org/x",
    "/https%3A%2F%2Fexample.org%2Fa%3Fb=c%23d",
    "/http:%2F%2Fexample.org",
    "/file:%2F%2F%2Fetc",
    "/%D0%9F%D1%80%D0%B8%D0%B2%D0%B5%D1%82",
    "/%E4%BD%A0%E5%A5%BD",
    "/%F0%9F%98%80",
    "/caf%C3%A9",
    "/cafe%CC%81",
    "/%C3%9F",
    "/stra%C3%9Fe",
    "/wait%E2%80%A6",
    "/%E2%80%93",
    "/%C2%BD",
    "/%EF%AC%81",
    "/%E2%84%A2",
    "/x%E2%80%8Dy",
    "/%F0%9F%91%A8%E2%80%8D%F0%9F%91%A9%E2%80%8D%F0%9F%91%A7",
    "/%E2%9D%A4%EF%B8%8F",
    "/%D8%B9%D8%B1%D8%A8%D9%8A",
    "/%E3%82%A2.txt",
    "/%E3%81%82%E3%80%82",
    "/%EF%BC%A1%EF%BC%A2",
    "/%7Euser",
    "/%41%42",
    "/%61bc",
    "/%2Ehidden",
    "/a%2Eb",
    "/x%2Etar%2Egz",
    "/%3Cb%3E",
    "/%22quoted%22",
    "/%7B%7D",
    "/%7Bid%7D/x",
    "/%5B0%5D",
    "/a%7Cb",
    "/%60",
    "/%5E",
    "/UPPER/Case/Path",
    "/iVBORw0KGgo=/x==",
];

const QUERIES: [&str; 32] = [
    "?",
    "?a=b",
    "?fields=id,summary,project(shortName)",
    "?$top=-1&$skip=0",
    "?%24top=-1",
    "?query=for:%20me%20%23Unresolved",
    "?q=a+b",
    "?q=../../hub/api",
    "?next=/hub/api/x",
    "?url=http://evil/x",
    "?a[]=1&a[]=2",
    "?a%5B%5D=1",
    "?a=b?c=d",
    "?a=b/c/../d",
    "?a=%2e%2e%2f",
    "?a=%00",
    "?a=%zz",
    "?a=%",
    "?a=\\",
    "?a=|",
    "?a=^",
    "?a=`",
    "?a='",
    "?a;b;c",
    "?a==",
    "?&&&",
    "?a=@:!$()*,;",
    "?a=%C3%A9",
    "?a=%ff",
    "?token=abc",
    "?access_token=opaque-but-not-ours",
    "?a=pgt_",
];

fn check(stage: &Stage, method: &str, target: &str, fields: &str) -> Option<String> {
    let fields = format!("Host: g\r\n{}{fields}", stage.bearer());
    let (answer, received) = stage.send_one(method, target.as_bytes(), &fields);
    if answer.status != 200 {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        return Some(format!("{method} {target}: {} {text}", answer.status));
    }
    match &received[..] {
        [one] if one.target == target && one.method == method && one.fault.is_none() => None,
        other => Some(format!("{method} {target}: arrived as {other:?}")),
    }
}

#[test]
fn benign_paths_and_queries_pass_unchanged() {
    let mut failed = Vec::new();
    let mut rows = 0;
    for (stage, prefixes) in [
        (Stage::with_sibling_services(), vec!["/api", "/rest"]),
        (Stage::with_nested_services(), vec!["", "/api", "/x"]),
    ] {
        for prefix in prefixes {
            for path in PATHS {
                let target = format!("{prefix}{path}");
                if target.starts_with('/') {
                    rows += 1;
                    failed.extend(check(&stage, "GET", &target, ""));
                }
            }
        }
        for query in QUERIES {
            rows += 1;
            failed.extend(check(&stage, "GET", &format!("/api/x{query}"), ""));
        }
        for length in [1000, 4000, 8000, 16_000] {
            rows += 2;
            failed.extend(check(&stage, "GET", &format!("/api/{}", "a".repeat(length)), ""));
            failed.extend(check(&stage, "GET", &format!("/api/x?q={}", "%20".repeat(length / 3)), ""));
        }
        // Many segments and many escapes are legitimate.
        let japanese = "%E6%97%A5%E6%9C%AC%E8%AA%9E/".repeat(40);
        failed.extend(check(&stage, "GET", &format!("/api/{japanese}"), ""));
        failed.extend(check(&stage, "GET", &format!("/api/{}", "%20a".repeat(200)), ""));
        failed.extend(check(&stage, "GET", &format!("/api/{}x", "a/".repeat(2000)), ""));
        failed.extend(check(&stage, "GET", &format!("/api/{}x", "a.b/".repeat(500)), ""));
        rows += 4;
    }
    assert!(failed.is_empty(), "{} of {rows} rows failed:\n{}", failed.len(), failed.join("\n"));
    println!("{rows} rows");
}

#[test]
fn benign_methods_and_fields_pass() {
    let stage = Stage::with_sibling_services();
    let mut failed = Vec::new();
    for method in
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT", "M-SEARCH"]
    {
        failed.extend(check(&stage, method, "/api/x", ""));
    }
    let fields = [
        ("Accept", "application/json, text/plain;q=0.5, */*"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "de-CH,de;q=0.9"),
        ("Cookie", "a=b; c=\"d\"; e=%20"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"),
        ("If-None-Match", "W/\"abc\", \"def\""),
        ("If-Modified-Since", "Sat, 29 Oct 1994 19:43:31 GMT"),
        ("Range", "bytes=0-499, -500"),
        ("Origin", "https://app.example"),
        ("Referer", "https://app.example/x?y=z"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("X-Requested-With", "XMLHttpRequest"),
        ("X-Custom_Name", "underscores are names too"),
        ("X.Custom.Name", "dots are names too"),
        ("X-Latin", "caf\u{e9}"),
        ("X-Empty", ""),
        ("X-Tab", "a\tb"),
        ("X-Long", "0123456789"),
        ("X-Api-Key", "abc"),
        ("Sec-Fetch-Mode", "cors"),
        ("Cache-Control", "no-cache"),
        ("X-CSRF-Token", "abc=="),
        ("Content-Type", "application/json; charset=utf-8"),
        ("!#$%&'*+-.^_`|~9aZ", "every character of a name"),
    ];
    for (name, value) in fields {
        let (answer, received) =
            stage.send_one("GET", b"/api/x", &format!("Host: g\r\n{}{name}: {value}\r\n", stage.bearer()));
        let value: String = value.bytes().map(char::from).collect();
        match &received[..] {
            [one] if answer.status == 200 && one.all(name) == [value.as_str()] => {}
            other => failed.push(format!("{name}: {value}: {} {other:?}", answer.status)),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
