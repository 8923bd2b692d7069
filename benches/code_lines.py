#!/usr/bin/env python3
"""Count the lines of code in each module of src and compare them with the baseline in code_lines.json.

usage: code_lines.py [--record REVISION] [--files]

A line of code is not blank, not a comment and not a test: `#[cfg(test)]` items, the files of `#[cfg(test)]`
modules, `tests.rs` and `tests/` are excluded. The sources are first formatted with the fixed settings below,
so that a change of .rustfmt.toml does not affect the counts. `--record` counts a revision (by `git archive`)
and writes it to code_lines.json as the new baseline. `--files` lists every file.
"""
import argparse, collections, json, pathlib, re, shutil, subprocess, sys, tarfile, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASELINE = ROOT / "benches/code_lines.json"
FORMAT = ["--edition", "2024", "--config", "max_width=110,use_small_heuristics=Max"]
# Excluded from the budgets for issues.
LEFT_OUT = ["store", "admin"]

TOKEN = re.compile(
    r"""(?P<line_comment>//[^\n]*)
      | (?P<block_comment>/\*)
      | (?P<raw_string>\b(?:b|c)?r(?P<hashes>\#*)".*?"(?P=hashes))
      | (?P<string>(?:\b[bc])?"(?:[^"\\]|\\.)*")
      | (?P<char>\bb?'(?:[^'\\\n]|\\(?:u\{[^}]*\}|x..|.))'|'(?:[^'\\\n]|\\(?:u\{[^}]*\}|x..|.))')""",
    re.S | re.X,
)
TEST = re.compile(r"#\[cfg\(test\)\]")
ATTRIBUTE = re.compile(r"\s*#\[")
MODULE = re.compile(r"\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--record", metavar="REVISION", help="make a revision the baseline")
    p.add_argument("--files", action="store_true", help="list every file")
    given = p.parse_args()
    if given.record:
        return record(given.record)
    files = count(ROOT / "src")
    if given.files:
        for file, lines in sorted(files.items(), key=lambda entry: -entry[1]):
            print(f"{lines:6} {file}")
        print()
    baseline = json.loads(BASELINE.read_text())
    print_table(baseline["revision"], baseline["modules"], by_module(files))


def record(revision):
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short=7", f"{revision}^{{commit}}"], check=True, text=True,
                            stdout=subprocess.PIPE).stdout.strip()
    with tempfile.TemporaryDirectory() as directory:
        archive = pathlib.Path(directory, "src.tar")
        subprocess.run([*git, "archive", "-o", archive, commit, "src"], check=True)
        with tarfile.open(archive) as tar:
            tar.extractall(directory, filter="data")
        modules = by_module(count(pathlib.Path(directory, "src")))
    BASELINE.write_text(json.dumps({"revision": commit, "modules": modules}, indent=2) + "\n")
    print(f"{BASELINE.name}: {sum(modules.values())} lines at {commit}")


def print_table(revision, before, now):
    print(f"{'module':<12}{revision:>10}{'now':>10}{'ratio':>8}")
    for module in sorted(before.keys() | now.keys()):
        print(f"{module:<12}{row(before.get(module, 0), now.get(module, 0))}")
    print(f"{'all':<12}{row(sum(before.values()), sum(now.values()))}")
    kept = [sum(lines for module, lines in counts.items() if module not in LEFT_OUT) for counts in (now, before)]
    print(f"src without {' and '.join(LEFT_OUT)}: {kept[0]} of {kept[1]} ({ratio(kept[1], kept[0])})")


def row(before, now):
    return f"{before:>10}{now:>10}{ratio(before, now):>8}"


def ratio(before, now):
    return f"{now / before:.3f}" if before else "new"


def by_module(files):
    """Sums by module: `net.rs` and `net/tls.rs` both belong to `net`."""
    modules = collections.Counter()
    for file, lines in files.items():
        modules[file.parts[0].removesuffix(".rs")] += lines
    return dict(sorted(modules.items()))


def count(source):
    """Returns the lines of code by file, relative to `source`."""
    with tempfile.TemporaryDirectory() as directory:
        source = shutil.copytree(source, pathlib.Path(directory, "src"))
        # rustfmt follows every module, including those of features.
        subprocess.run(["rustfmt", *FORMAT, source / "lib.rs", source / "main.rs"], check=True)
        texts = {file: without_comments(file.read_text()) for file in sorted(source.rglob("*.rs"))}
        tests = {path for file, (_, code) in texts.items() for path in test_modules(file, code)}
        return {file.relative_to(source): lines_of_code(*text) for file, text in texts.items()
                if not is_test(file.relative_to(source)) and not any(
                    path == file or path in file.parents for path in tests)}


def is_test(file):
    return file.name == "tests.rs" or "tests" in file.parts


def without_comments(text):
    """Returns the text with comments as spaces, and the same with literals as `x`, so that brackets match."""
    kept, code, at = [], [], 0
    while match := TOKEN.search(text, at):
        end = match.end() if match.lastgroup != "block_comment" else end_of_block(text, match.start())
        for out in (kept, code):
            out.append(text[at:match.start()])
        token = text[match.start():end]
        comment = match.group("line_comment") or match.group("block_comment")
        kept.append(re.sub(r"[^\n]", " ", token) if comment else token)
        code.append(re.sub(r"[^\n]", " " if comment else "x", token))
        at = end
    return "".join(kept) + text[at:], "".join(code) + text[at:]


def end_of_block(text, start):
    depth, at = 0, start
    for match in re.compile(r"/\*|\*/").finditer(text, start):
        depth += 1 if match.group() == "/*" else -1
        at = match.end()
        if depth == 0:
            return at
    sys.exit("a block comment has no end")


def test_modules(file, code):
    """Yields the files and directories of `#[cfg(test)] mod name;`."""
    home = file.parent if file.name in ("lib.rs", "main.rs") else file.with_suffix("")
    for test in TEST.finditer(code):
        if module := MODULE.match(code, end_of_attributes(code, test.end())):
            yield from (home / f"{module[1]}.rs", home / module[1])


def lines_of_code(kept, code):
    at, parts = 0, []
    for test in TEST.finditer(code):
        if test.start() >= at:
            parts.append(kept[at:test.start()])
            at = end_of_item(code, end_of_attributes(code, test.end()))
    text = "".join([*parts, kept[at:]])
    return sum(1 for line in text.splitlines() if line.strip())


def end_of_attributes(code, at):
    while match := ATTRIBUTE.match(code, at):
        at = end_of_brackets(code, match.end() - 1)
    return at


def end_of_item(code, at):
    """Returns the position after the block, `;` or `,` that ends an item, a statement or a field."""
    while at < len(code):
        c = code[at]
        if c in ";,":
            return at + 1
        if c == "}":
            return at
        if c in "([{":
            at = end_of_brackets(code, at)
            if c == "{" and not re.match(r"\s*[;,]", code[at:at + 80]):
                return at
        else:
            at += 1
    return at


def end_of_brackets(code, at):
    depth = 0
    for match in re.compile(r"[(\[{]|[)\]}]").finditer(code, at):
        depth += 1 if match.group() in "([{" else -1
        if depth == 0:
            return match.end()
    sys.exit("a bracket has no end")


if __name__ == "__main__":
    main()
