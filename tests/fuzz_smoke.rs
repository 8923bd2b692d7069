//! The fuzz targets' own functions over deterministic random input: pieces that mean something to a
//! parser, mutated, so that the stable compiler's CI runs into what a fuzzer would find first.

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

/// xorshift64: the same input on every run and machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}
