//! Pattern strings: what they mean, how they print, and what is said of wrong ones.

use std::sync::Arc;

use ophidian_scan::{
    Args, Entry, Error, Geometry, Kind, Modifier, Order, Param, Pattern, Plan, Result, Rule, SyntaxError,
    entries, register,
};
use proptest::prelude::*;

fn parse(text: &str) -> Pattern {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn syntax(text: &str) -> SyntaxError {
    match text.parse::<Pattern>() {
        Err(Error::Syntax(error)) => *error,
        Err(other) => panic!("{text}: not a syntax error: {other}"),
        Ok(pattern) => panic!("{text} parsed as {pattern}"),
    }
}

/// The string of a random pattern, with more brackets, spaces and defaults than it needs.
fn strings() -> impl Strategy<Value = String> {
    let text = prop_oneof!["[a-z ]{0,6}", any::<String>()];
    let quoted = text.prop_map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")));
    let atom = prop_oneof![
        Just("row".to_string()),
        Just("column()".to_string()),
        Just(" serpentine".to_string()),
        any::<u32>().prop_map(|seed| format!("random(seed = {seed})")),
        Just("random(0)".to_string()),
        Just("VMamba/cross2d".to_string()),
        (1..99u32).prop_map(|n| format!("localmamba/w{n}-flip")),
        any::<u32>().prop_map(|seed| format!("rsmamba/forward_reverse_shuffle(seed={seed})")),
        Just("zigma/hilbert8(compat=released)".to_string()),
        Just("pcm/xyz(grid=0.00005)".to_string()),
        (any::<u32>(), -9..9i32).prop_map(|(n, power)| format!("pcm/xyz(grid={}.5e{power})", n % 999)),
        quoted.prop_map(|path| format!("file({path})")),
    ];
    let modifier = prop_oneof![
        Just("reverse".to_string()),
        Just("transpose( )".to_string()),
        Just("cross".to_string()),
        Just("bidirectional".to_string()),
        (1..99u32, 1..99u32).prop_map(|(h, w)| format!("window({h},{w})")),
        (1..9u32, any::<bool>()).prop_map(|(h, reset)| format!("window(height={h}, reset={reset})")),
        (1..9u32, any::<bool>(), any::<bool>()).prop_map(|(step, joined, alternate)| format!(
            "atrous({step}, alternate={alternate}, joined={joined})"
        )),
        any::<(i32, i32)>().prop_map(|(down, right)| format!("shift(right={right}, down={down})")),
        Just("blanks(drop)".to_string()),
    ];
    let first = prop_oneof![atom, modifier.clone()];
    first.prop_recursive(6, 24, 3, move |inner| {
        prop_oneof![
            (inner.clone(), modifier.clone()).prop_map(|(inner, modifier)| format!("{inner}|{modifier}")),
            (inner.clone(), modifier.clone())
                .prop_map(|(inner, modifier)| format!("{modifier} of ({inner} )")),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|inner| format!("[ {},]", inner.join(" , "))),
            inner.prop_map(|inner| format!("( {inner})")),
        ]
    })
}

proptest! {
    #[test]
    fn display_parses_back(text in strings()) {
        let pattern = parse(&text);
        let shown = pattern.to_string();
        let again: Pattern = shown.parse().map_err(|error| TestCaseError::fail(format!("{shown}: {error}")))?;
        prop_assert_eq!(&again, &pattern);
        prop_assert_eq!(again.to_string(), shown);
        let json = serde_json::to_string(&pattern).unwrap();
        prop_assert_eq!(serde_json::from_str::<Pattern>(&json).unwrap(), pattern);
    }

    #[test]
    fn display_means_the_same(text in strings()) {
        prop_assume!(!text.contains("file"));
        let pattern = parse(&text);
        let shape = Geometry::Grid2 { height: 3, width: 4 };
        let (plan, again) = (pattern.plan(&shape), parse(&pattern.to_string()).plan(&shape));
        match (plan, again) {
            (Ok(plan), Ok(again)) => prop_assert_eq!(plan, again),
            (Err(error), Err(again)) => prop_assert_eq!(error.to_string(), again.to_string()),
            _ => prop_assert!(false, "{} plans differently from {}", pattern, text),
        }
    }

    #[test]
    fn any_text_parses_or_is_pointed_at(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn text_like_a_pattern_parses_or_is_pointed_at(
        words in prop::collection::vec(
            prop_oneof![
                Just("row"), Just("window"), Just("cross"), Just("of"), Just("file"), Just("["), Just("]"), Just("("),
                Just(")"), Just(","), Just("|"), Just("="), Just("7"), Just("-"), Just("99999999999999999999"),
                Just("\""), Just("\\"), Just("true"), Just("reset"), Just("é"), Just("\u{301}"), Just(" "), Just(".json"),
            ],
            0..20,
        ),
    ) {
        check(&words.concat())?;
    }
}

/// A text parses to something that prints and parses, or its error points into it.
fn check(text: &str) -> std::result::Result<(), TestCaseError> {
    match text.parse::<Pattern>() {
        Ok(pattern) => prop_assert_eq!(parse(&pattern.to_string()), pattern),
        Err(Error::Syntax(error)) => {
            prop_assert!(error.text.get(error.span.clone()).is_some(), "{:?} in {:?}", error.span, text);
            prop_assert!(!error.message.is_empty() && error.to_string().contains('^'));
        }
        Err(other) => prop_assert!(false, "{}", other),
    }
    Ok(())
}

#[test]
fn shortest_forms() {
    for (text, shown) in [
        ("row", "row"),
        (" cross ", "cross"),
        ("row | cross", "cross"),
        ("reverse", "row | reverse"),
        ("window(7,7) of row", "row | window(7)"),
        ("window(7, 5, reset=true)", "row | window(7, 5, reset=true)"),
        ("window(7, reset=true)", "row | window(7, reset=true)"),
        ("window(reset=false, width=3, height=2)", "row | window(2, 3)"),
        ("window(2) of window(4) of column | reverse", "column | window(4) | window(2) | reverse"),
        ("[row, column | reverse, [cross]]", "[row, column | reverse, [cross]]"),
        ("((row)) | (bidirectional", ""),
        ("atrous(2, joined=true, reset=true)", "row | atrous(2, joined=true, reset=true)"),
        ("random(3)", "random(seed=3)"),
        ("random(0)", "random"),
        ("file('a \"b\" \\\\.npy')", r#"file("a \"b\" \\.npy")"#),
        ("maps/my order.json", r#"file("maps/my order.json")"#),
        ("serpentine|bidirectional|blanks(skip)", "serpentine | bidirectional | blanks(skip)"),
    ] {
        if shown.is_empty() {
            syntax(text);
        } else {
            assert_eq!(parse(text).to_string(), shown);
        }
    }
}

#[test]
fn lists_of_one_are_what_they_hold() {
    for (text, shortest) in [
        ("[row]", "row"),
        ("[[[column]]]", "column"),
        ("[row] | reverse", "row | reverse"),
        ("[[row], [column | transpose]]", "[row, column | transpose]"),
        ("[row] | bidirectional", "bidirectional"),
    ] {
        assert_eq!(parse(text).simplified().to_string(), parse(shortest).to_string(), "{text}");
        assert_eq!(parse(text).simplified(), parse(shortest), "{text}");
    }
}

#[test]
fn numbers_may_have_exponents() {
    for (text, same) in [
        ("serialize(z, grid=1e-3)", "serialize(z, grid=0.001)"),
        ("serialize(z, grid=2.5E+2)", "serialize(z, grid=250.0)"),
        ("serialize(z, grid=1e2)", "serialize(z, grid=100.0)"),
    ] {
        assert_eq!(parse(text), parse(same), "{text}");
    }
    for text in ["serialize(z, grid=1e)", "serialize(z, grid=1e+)", "serialize(z, grid=1e999)"] {
        assert!(syntax(text).message.contains("is not a number"), "{text}");
    }
}

#[test]
fn errors_point_at_the_culprit() {
    for (text, culprit, message, help) in [
        ("", "", "the pattern ends where a pattern such as `row` is expected", ""),
        ("hilbrt | cross", "hilbrt", "there is no pattern named `hilbrt`", "known: row, column"),
        ("row | revers", "revers", "there is no pattern named `revers`", "did you mean `reverse`?"),
        ("Serpentin", "Serpentin", "no pattern named", "did you mean `serpentine`?"),
        ("snake", "snake", "no pattern named", "did you mean `serpentine`?"),
        ("cross2d", "cross2d", "no pattern named", "did you mean `cross` or `vmamba/cross2d`?"),
        (
            "vmamba/cros2d",
            "vmamba/cros2d",
            "no pattern named",
            "did you mean `vmamba/cross2d`? published: vmamba/cross2d, ",
        ),
        ("window(2) of a/ix.json", "a/ix", "no pattern named", "is written `file(\"a/ix.json\")`"),
        ("[row, a/ix.npy]", "a/ix", "no pattern named", "is written `file(\"a/ix.npy\")`"),
        ("zigzag8", "zigzag8", "no pattern named", "`zigma/zigzag8`?"),
        ("vivim", "vivim", "no pattern named", "published: vivim/tri"),
        (
            "grootv/treescan",
            "grootv/treescan",
            "no order of a geometry alone: it needs features (B, C, H, W)",
            "",
        ),
        ("localmamba/w0", "localmamba/w0", "no pattern named", "published: localmamba/h, "),
        ("row | vim/bimambav2", "vim/bimambav2", "is a curve", "`[row, vim/bimambav2]`"),
        ("vmamba/cross2d(1)", "1", "`vmamba/cross2d` takes no arguments", ""),
        ("vim/clslayout(class_token=tail)", "tail", "`class_token` must be one of middle, head, end", ""),
        ("row | column", "column", "`column` is a curve", "`[row, column]` takes the directions of both"),
        ("row of column", "row", "`row` is a curve: only a modifier stands before `of`", ""),
        ("row column", "c", "found `c`, expected the end or `|`", ""),
        ("row |", "", "the pattern ends where a modifier such as `reverse` is expected", ""),
        ("[row, column", "", "the pattern ends where `,`, `]` or `|` is expected", ""),
        ("[]", "]", "found `]`, expected a pattern", ""),
        ("(row", "", "the pattern ends where `)` or `|` is expected", ""),
        (
            "window",
            "window",
            "`window` needs `height`: a whole number of at least 1",
            "usage: window(height, width=height",
        ),
        ("window(0)", "0", "`height` must be a whole number of at least 1, found 0", "usage: window"),
        ("window(2, -3)", "-3", "`width` must be", "usage: window"),
        ("window(2, 3, true)", "true", "expected `reset=true` or `reset=false` here", "usage: window"),
        ("window(2, 3, 4, 5)", "4", "expected `reset=true`", "usage: window"),
        ("window(2, rest=true)", "rest", "`window` has no argument `rest`", "usage: window"),
        ("window(height=2, 3)", "3", "needs its name too", "usage: window"),
        ("window(2, height=3)", "height=3", "`height` is given twice", "usage: window"),
        ("window(2", "", "the pattern ends where `,` or `)` is expected", ""),
        ("row(1)", "1", "`row` takes no arguments", "usage: row"),
        ("random(1, 2)", "2", "`random` takes one argument", "usage: random(seed=0)"),
        ("random(seed=-1)", "-1", "`seed` must be a whole number of at least 0, found -1", ""),
        ("random(99999999999999999999)", "99999999999999999999", "too large a number", ""),
        ("blanks(keep)", "keep", "`kind` must be one of zero, skip, drop, found keep", ""),
        ("file(orders.json)", "orders", "`path` must be text in quotes", "usage: file(path, strict=true)"),
        ("file(orders)", "orders", "`path` must be text in quotes, found orders", ""),
        ("file(\"orders.json)", "\"orders.json)", "the text in quotes does not end", ""),
        ("file(\"a\\n.json\")", "\\n", "unknown escape", "for a backslash"),
        ("atrous(2, reset=true)", "atrous(2, reset=true)", "it needs joined=true", ""),
        ("row | réverse", "réverse", "no pattern named `réverse`", "did you mean `reverse`?"),
    ] {
        let error = syntax(text);
        assert_eq!(&text[error.span.clone()], culprit, "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
        assert!(error.help.clone().unwrap_or_default().contains(help), "{text}: {error}");
    }
}

#[test]
fn error_reads_well() {
    let error = "row | windw(7)".parse::<Pattern>().unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines[..3], ["there is no pattern named `windw`", "  row | windw(7)", "        ^^^^^"]);
    assert!(lines[3].starts_with("did you mean `window`? known: row, "), "{error}");
    assert!(error.lines().last().unwrap().len() < 1200, "{error}");
}

#[test]
fn hostile_strings_are_refused() {
    for text in [
        "[".repeat(8000),
        "(".repeat(8000),
        "reverse of ".repeat(700),
        "row".to_string() + &"|reverse".repeat(900),
    ] {
        assert!(syntax(&text).message.contains("nested too deeply"), "{}", syntax(&text).message);
    }
    let long = syntax(&"é".repeat(1 << 20));
    assert!(long.message.contains("too long") && long.to_string().len() < 1000);
    // At the limit it works, and so does everything that walks the tree.
    let deep = "row".to_string() + &" | reverse".repeat(63);
    assert_eq!(parse(&deep).to_string(), deep);
    assert!(parse(&deep).plan(&Geometry::Sequence { len: 4 }).is_ok());
}

/// Every other token from the back, then the rest.
struct Weave;

impl Rule for Weave {
    fn plan(&self, geometry: &Geometry) -> Result<Plan> {
        let tokens = geometry.tokens()? as i32;
        let walk = (0..tokens).rev().step_by(2).chain((0..tokens - 1).rev().step_by(2));
        Plan::new(vec![Order::new(walk.collect(), tokens as usize)?])
    }
}

/// Each direction `times` times.
struct Repeat(usize);

impl Modifier for Repeat {
    fn plan(&self, source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
        let plan = source.plan(geometry)?;
        let repeated = plan.orders().iter().flat_map(|order| std::iter::repeat_n(order.clone(), self.0));
        Plan::new(repeated.collect())
    }
}

#[test]
fn patterns_of_another_crate() {
    let weave =
        Entry::curve("acme/weave", "every other token", |_: &Args| Ok(Arc::new(Weave) as Arc<dyn Rule>));
    let repeat = |args: &Args| Ok(Arc::new(Repeat(args.size("times")?)) as Arc<dyn Modifier>);
    let repeat =
        Entry::modifier("acme/repeat", "each direction again", repeat).params([Param::size("times")]);
    register(weave.clone()).unwrap();
    register(repeat).unwrap();
    assert!(register(weave.clone()).unwrap_err().to_string().contains("already"));
    for name in ["", "of", "7x", "a b", "a|b"] {
        let entry = Entry::curve(name, "", |_: &Args| Ok(Arc::new(Weave) as Arc<dyn Rule>));
        assert!(register(entry).unwrap_err().to_string().contains("cannot name a pattern"), "{name}");
    }
    for name in ["vmamba/cross2d", "VMamba/SS2D-v05", "localmamba/w9"] {
        let entry = Entry::curve(name, "", |_: &Args| Ok(Arc::new(Weave) as Arc<dyn Rule>));
        assert!(register(entry).unwrap_err().to_string().contains("already"), "{name}");
    }

    let pattern = parse("acme/repeat(times=3) of acme/weave");
    assert_eq!(pattern.to_string(), "acme/weave | acme/repeat(3)");
    let plan = pattern.plan(&Geometry::Sequence { len: 5 }).unwrap();
    assert_eq!(plan.directions(), 3);
    assert_eq!(plan.orders()[2].index(), [4, 2, 0, 3, 1]);
    assert!(
        entries().iter().any(|entry| entry.usage() == "acme/repeat(times)" && entry.kind() == Kind::Modifier)
    );
    assert!(syntax("acme/weve").help.unwrap().contains("did you mean `acme/weave`?"));
}

#[test]
fn a_default_in_the_middle_is_left_out() {
    let make = |_: &Args| Ok(Arc::new(Weave) as Arc<dyn Rule>);
    let params = [Param::size("a"), Param::size("b").or_previous(), Param::size("c").or_previous()];
    register(Entry::curve("acme/abc", "three sizes", make).params(params)).unwrap();
    for (text, shown) in [
        ("acme/abc(1, 1, 2)", "acme/abc(1, c=2)"),
        ("acme/abc(c=3, b=2, a=1)", "acme/abc(1, 2, 3)"),
        ("acme/abc(1, 2, 2)", "acme/abc(1, 2)"),
        ("acme/abc(a=1)", "acme/abc(1)"),
    ] {
        assert_eq!(parse(text).to_string(), shown);
        assert_eq!(parse(shown), parse(text));
    }
}

#[test]
fn different_patterns_differ() {
    let texts = [
        "row",
        "column",
        "random(1)",
        "random(2)",
        "row | reverse",
        "column | reverse",
        "row | window(2)",
        "row | window(3)",
        "[row]",
        "[row, column]",
        "[column, row]",
        "cross",
    ];
    for (i, text) in texts.iter().enumerate() {
        for (j, other) in texts.iter().enumerate() {
            assert_eq!(parse(text) == parse(other), i == j, "{text} and {other}");
        }
    }
}

#[test]
fn a_rule_over_the_wrong_tokens_is_named() {
    let wrong = |_: &Geometry| Plan::new(vec![Order::identity(3)?]);
    register(Entry::curve("acme/three", "three tokens", move |_: &Args| Ok(Arc::new(wrong)))).unwrap();
    let error = parse("acme/three | window(2)").plan(&Geometry::Grid2 { height: 4, width: 4 }).unwrap_err();
    assert!(
        error.to_string().contains("`acme/three` needs 3 tokens, but the tokens are a 2x2 grid"),
        "{error}"
    );
}
