//! The functions of the fuzz targets with deterministic random input: pieces that a parser knows, mutated, so
//! that CI with the stable compiler finds what a fuzzer would find first.

#[path = "../fuzz/entries.rs"]
mod entries;

const ROUNDS: usize = 20_000;

#[test]
fn path() {
    let pieces = [
        "/",
        "//",
        "api",
        "API",
        "reports",
        "%2f",
        "%5c",
        "%252f",
        "%2e",
        "..",
        ".",
        ";",
        "%3b",
        "%c0%af",
        "%ef%bc%8f",
        "%00",
        "%",
        "é",
        "?",
        "#",
        "+",
        "(A(",
        "A()",
        ")",
        "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW",
        "%5F",
    ];
    run(&pieces, ROUNDS, |bytes| {
        entries::path(bytes);
        entries::path(&[b"/", bytes].concat());
    });
}

#[test]
fn bearer() {
    let token = "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW";
    run(
        &["Bearer", "bearer ", " ", "Basic", token, "perm:", "perm-", ",", "\t", "=", "\u{ff}"],
        ROUNDS,
        entries::bearer,
    );
}

#[test]
fn record() {
    run(&["\0", "\u{1}", "\u{2}", "\u{7f}", "alice", "0198c2f0", "\u{ff}\u{ff}"], ROUNDS, entries::record);
}

#[test]
fn configuration() {
    let pieces = [
        "version = 1\n",
        "[server]\n",
        "listen = [\"127.0.0.1:0\"]\n",
        "[service.a]\n",
        "[[public]]\n",
        "paths = [\"/a\"]\n",
        "upstream = \"u\"\n",
        "[upstream.u]\n",
        "urls = [\"http://127.0.0.1:1\"]\n",
        "readers = [\"all-users\"]\n",
        "\"",
        "=",
        "[",
        "]",
        "{",
        "}",
        "é",
        "\n",
        "10s",
        "256m",
        "title",
        "1e999",
        "#",
    ];
    run(&pieces, 3_000, entries::configuration);
}

#[test]
fn proxy_header() {
    let pieces = [
        "PROXY ",
        "TCP4 ",
        "TCP6 ",
        "UNKNOWN",
        "192.0.2.1 ",
        "::1 ",
        "65535",
        "0",
        " ",
        "\r\n",
        "\n",
        "GET / ",
        "\r\n\r\n\0\r\nQUIT\n",
        "!",
        "\u{11}",
        "\0\u{c}",
        "\u{20}",
        "\0\0\0\0",
        "\u{7f}\0\0\u{1}",
    ];
    run(&pieces, ROUNDS, |bytes| {
        entries::proxy_header(bytes);
        entries::proxy_header(&[b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", bytes].concat());
        entries::proxy_header(&[b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", bytes].concat());
    });
}

#[test]
fn forwarded() {
    let pieces = [
        "for=",
        "For=",
        "by=",
        "host=",
        "proto=https",
        "192.0.2.1",
        "10.0.0.2",
        "\"[2001:db8::1]:80\"",
        "[::1]",
        "::ffff:10.0.0.3",
        "unknown",
        "_hidden",
        ":80",
        ",",
        ";",
        " ",
        "\"",
        "\\",
        "\\\"",
        "\t",
        "é",
    ];
    run(&pieces, ROUNDS, entries::forwarded);
}

#[test]
fn cookies() {
    let pieces = [
        "permgate",
        "__Host-permgate",
        "permgate-flow",
        "__host-PERMGATE-flow",
        "a",
        "=",
        "==",
        ";",
        "; ",
        " ",
        "\t",
        "\"",
        "x=y",
        ",",
        "é",
        "\u{b}",
        "\u{c}",
    ];
    run(&pieces, ROUNDS, entries::cookies);
}

#[test]
fn forward_auth() {
    let pieces = [
        "/.permgate/auth",
        "/",
        "x",
        "?a=b",
        "#f",
        "%2f",
        "//",
        "\n",
        "X-Original-Method:",
        "X-Original-URI:",
        "X-Original-URL:",
        "X-Forwarded-Method:",
        "X-Forwarded-Host:",
        "X-Forwarded-Uri:",
        "X-Original-Upgrade:",
        "Host:",
        "Upgrade:",
        "GET",
        "gate.example",
        "http://",
        "https://gate.example/",
        ":80",
        "[::1]",
        " ",
        "@",
        "é",
    ];
    run(&pieces, ROUNDS, |bytes| {
        entries::forward_auth(bytes);
        entries::forward_auth(&[b"/.permgate/auth", bytes].concat());
        let nginx = b"/.permgate/auth\nX-Original-Method:GET\nHost:gate.example\nX-Original-URI:/";
        entries::forward_auth(&[&nginx[..], bytes].concat());
    });
}

#[test]
fn journal_entry() {
    let pieces = ["pgen", "\u{1}\0\0\0", "\0", "\u{7f}", "\0\0\0\0\0\0\0\0", "permgate", "\u{ff}"];
    run(&pieces, 5_000, entries::journal_entry);
}

fn run(pieces: &[&str], rounds: usize, entry: impl Fn(&[u8])) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..rounds {
        let mut input = Vec::new();
        for _ in 0..random.below(12) {
            input.extend_from_slice(pieces[random.below(pieces.len())].as_bytes());
        }
        for _ in 0..random.below(3) {
            if !input.is_empty() {
                let at = random.below(input.len());
                input[at] = random.below(256) as u8;
            }
        }
        entry(&input);
    }
}

/// xorshift64: the same numbers in every run and on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}
