//! The parser of pattern strings: recursive descent, bounded in length and depth, never a panic.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::registry::{Accepts, Entry, Make, Real, entries, find};
use super::{Args, Call, Kind, Node, Param, Pattern, Value, published};
use crate::{SyntaxError, files::Format};

/// Longest pattern string, in bytes.
const MAX_TEXT: usize = 1 << 13;

/// Deepest nesting of brackets and longest chain of modifiers.
const MAX_DEPTH: usize = 64;

type Parsed<T> = std::result::Result<T, SyntaxError>;

/// What people call a built-in elsewhere, for suggestions.
const ALSO_CALLED: &[(&str, &str)] = &[
    ("identity", "row"),
    ("forward", "row"),
    ("raster", "row"),
    ("sequential", "row"),
    ("horizontal", "row"),
    ("vertical", "column"),
    ("snake", "serpentine"),
    ("continuous", "serpentine"),
    ("boustrophedon", "serpentine"),
    ("shuffle", "random"),
    ("permutation", "random"),
    ("indices", "file"),
    ("backward", "reverse"),
    ("flip", "reverse"),
    ("vim", "bidirectional"),
    ("bidi", "bidirectional"),
    ("vmamba", "cross"),
    ("cross2d", "cross"),
    ("ss2d", "cross"),
    ("local", "window"),
    ("dilated", "atrous"),
    ("es2d", "atrous"),
    ("roll", "shift"),
];

/// True for what can name an entry.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(in_name)
        && !["of", "true", "false"].contains(&text)
}

fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/')
}

/// Parses a pattern string; the grammar is at [`Pattern`].
pub(super) fn parse(text: &str) -> Parsed<Pattern> {
    if text.len() > MAX_TEXT {
        // The text itself is left out of the message: it would fill the screen.
        return Err(SyntaxError {
            text: format!("{}…", text.chars().take(40).collect::<String>()),
            span: 0..0,
            message: format!("a pattern of {} bytes is too long: at most {MAX_TEXT}", text.len()),
            help: None,
        });
    }
    let mut parser = Parser { text, at: 0 };
    // A file's name may hold what a pattern does too, but then the file is there.
    let plain = !text.contains(['|', '[', '(']) && !text.contains(" of ");
    if Format::of(text.trim().as_ref()).is_some() && (plain || Path::new(text.trim()).exists()) {
        let path = text.trim();
        let start = text.len() - text.trim_start().len();
        return parser.index_file(path, start..start + path.len());
    }
    let pattern = parser.pattern(0)?;
    match parser.peek() {
        None => Ok(pattern),
        Some(_) => Err(parser.unexpected("the end or `|`")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, span: Range<usize>, message: impl Into<String>, help: Option<String>) -> SyntaxError {
        SyntaxError { text: self.text.to_string(), span, message: message.into(), help }
    }

    /// The next character that is not a space, without taking it.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn unexpected(&mut self, expected: &str) -> SyntaxError {
        match self.peek() {
            None => self.error(
                self.text.len()..self.text.len(),
                format!("the pattern ends where {expected} is expected"),
                None,
            ),
            Some(found) => {
                let span = self.at..self.at + found.len_utf8();
                self.error(span, format!("found `{}`, expected {expected}", found.escape_debug()), None)
            }
        }
    }

    /// The name that starts here.
    fn name(&mut self) -> Option<(&'a str, Range<usize>)> {
        // Any letter is taken, so that a name with an odd one is unknown as a whole.
        self.peek().filter(|first| first.is_alphabetic())?;
        let taken = |c: &char| c.is_alphanumeric() || u8::try_from(*c).is_ok_and(in_name);
        let length: usize = self.text[self.at..].chars().take_while(taken).map(char::len_utf8).sum();
        let span = self.at..self.at + length;
        self.at = span.end;
        Some((&self.text[span.clone()], span))
    }

    /// The same, but it stays to be read.
    fn peek_name(&mut self) -> Option<&'a str> {
        let found = self.name();
        if let Some((_, span)) = &found {
            self.at = span.start;
        }
        found.map(|(name, _)| name)
    }

    fn pattern(&mut self, depth: usize) -> Parsed<Pattern> {
        let mut pattern = self.item(depth)?;
        while self.take('|') {
            let start = self.at;
            let (entry, call, span) = self.call("a modifier such as `reverse`")?;
            let Make::Modifier(make) = &entry.make else {
                return Err(self.error(
                    span,
                    format!(
                        "`{}` is a curve: it starts a walk and cannot change the one before `|`",
                        call.name
                    ),
                    Some(format!("`[{pattern}, {call}]` takes the directions of both")),
                ));
            };
            let modifier = make(&call.args).map_err(|error| self.error(span, error.to_string(), None))?;
            pattern = self.checked(Node::Modified { source: pattern, call, modifier }, start)?;
        }
        Ok(pattern)
    }

    fn item(&mut self, depth: usize) -> Parsed<Pattern> {
        let start = self.at;
        if depth > MAX_DEPTH {
            return Err(self.too_deep(start));
        }
        if self.take('(') {
            let pattern = self.pattern(depth + 1)?;
            return self.closed(')', "`)` or `|`").map(|()| pattern);
        }
        if self.take('[') {
            let mut patterns = Vec::new();
            loop {
                patterns.push(self.pattern(depth + 1)?);
                if !self.take(',') {
                    break;
                }
                if self.peek() == Some(']') {
                    break;
                }
            }
            self.closed(']', "`,`, `]` or `|`")?;
            return self.checked(Node::List(patterns), start);
        }
        let (entry, call, span) = self.call("a pattern such as `row`")?;
        let of = self.peek_name() == Some("of");
        match &entry.make {
            Make::Rule(_) if of => Err(self.error(
                span,
                format!("`{}` is a curve: only a modifier stands before `of`", call.name),
                None,
            )),
            Make::Rule(make) => {
                let rule = make(&call.args).map_err(|error| self.error(span, error.to_string(), None))?;
                self.checked(Node::Rule { call, rule }, start)
            }
            Make::Modifier(make) => {
                let modifier = make(&call.args).map_err(|error| self.error(span, error.to_string(), None))?;
                let source = if of {
                    self.name();
                    self.item(depth + 1)?
                } else {
                    self.row()?
                };
                self.checked(Node::Modified { source, call, modifier }, start)
            }
        }
    }

    fn closed(&mut self, bracket: char, expected: &str) -> Parsed<()> {
        if self.take(bracket) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn too_deep(&self, start: usize) -> SyntaxError {
        let message = format!("nested too deeply: at most {MAX_DEPTH} levels");
        let end = self.text[start..].char_indices().nth(1).map_or(self.text.len(), |(i, _)| start + i);
        self.error(start..end, message, None)
    }

    fn checked(&self, node: Node, start: usize) -> Parsed<Pattern> {
        let pattern = Pattern(Arc::new(node));
        if pattern.depth() > MAX_DEPTH { Err(self.too_deep(start)) } else { Ok(pattern) }
    }

    /// The walk that a modifier changes when it stands first.
    fn row(&self) -> Parsed<Pattern> {
        self.built("row", Vec::new(), self.at..self.at)
    }

    fn index_file(&self, path: &str, span: Range<usize>) -> Parsed<Pattern> {
        self.built("file", vec![Some(Value::Text(path.to_string())), None], span)
    }

    /// A built-in curve with these arguments.
    fn built(&self, name: &str, given: Vec<Option<Value>>, span: Range<usize>) -> Parsed<Pattern> {
        let missing = || self.error(span.clone(), format!("`{name}` cannot be made"), None);
        let entry = find(name).ok_or_else(missing)?;
        let args = Args::complete(entry.parameters().clone(), given).map_err(|_| missing())?;
        let Make::Rule(make) = &entry.make else { return Err(missing()) };
        let rule = make(&args).map_err(|error| self.error(span.clone(), error.to_string(), None))?;
        let call = Call { name: name.to_string(), kind: entry.kind(), args };
        Ok(Pattern(Arc::new(Node::Rule { call, rule })))
    }

    /// A name with its arguments, and the bytes that they take.
    fn call(&mut self, expected: &str) -> Parsed<(Entry, Call, Range<usize>)> {
        let Some((name, named)) = self.name() else { return Err(self.unexpected(expected)) };
        let entry = find(name).ok_or_else(|| self.unknown(name, named.clone()))?;
        let params = entry.parameters().clone();
        let mut given = vec![None; params.len()];
        let mut end = named.end;
        if self.take('(') {
            if self.peek() != Some(')') {
                self.arguments(&entry, &params, &mut given)?;
            }
            self.closed(')', "`,` or `)`")?;
            end = self.at;
        }
        let span = named.start..end;
        let args = Args::complete(params, given).map_err(|param| {
            let message = format!("`{name}` needs `{}`: {}", param.name, param.expected());
            self.error(span.clone(), message, Some(format!("usage: {}", entry.usage())))
        })?;
        let call = Call { name: entry.name().to_string(), kind: entry.kind(), args };
        Ok((entry, call, span))
    }

    /// The arguments up to the closing bracket, each put in its parameter's place in `given`.
    fn arguments(&mut self, entry: &Entry, params: &[Param], given: &mut [Option<Value>]) -> Parsed<()> {
        let mut by_name = false;
        for position in 0.. {
            self.peek();
            let start = self.at;
            let name = self.argument_name();
            let (value, span) = self.value()?;
            let found = &self.text[span.clone()];
            let wrong = |span: Range<usize>, message: String| {
                Err(self.error(span, message, Some(format!("usage: {}", entry.usage()))))
            };
            by_name |= name.is_some();
            let i = match name {
                Some((name, span)) => match params.iter().position(|param| param.name == name) {
                    Some(i) => i,
                    None => {
                        let message = format!("`{}` has no argument `{name}`", entry.name());
                        let instead =
                            (name == "compat").then(|| published::without_compat(entry.name())).flatten();
                        return wrong(
                            span,
                            instead.map_or(message.clone(), |why| format!("{message}: {why}")),
                        );
                    }
                },
                None if by_name => {
                    return wrong(span, "an argument after a named one needs its name too".into());
                }
                None => position,
            };
            let Some(param) = params.get(i) else {
                let message = match params.len() {
                    0 => format!("`{}` takes no arguments", entry.name()),
                    1 => format!("`{}` takes one argument", entry.name()),
                    n => format!("`{}` takes at most {n} arguments", entry.name()),
                };
                return wrong(span, message);
            };
            if !by_name && param.accepts == Accepts::Flag {
                let message = format!("expected `{}=true` or `{}=false` here", param.name, param.name);
                return wrong(span, message);
            }
            if given[i].is_some() {
                return wrong(start..span.end, format!("`{}` is given twice", param.name));
            }
            let bare = param.accepts == Accepts::Text && !found.starts_with(['"', '\'']);
            if bare || !param.admits(&value) {
                let message = format!("`{}` must be {}, found {found}", param.name, param.expected());
                return wrong(span, message);
            }
            given[i] = Some(value);
            if !self.take(',') {
                break;
            }
        }
        Ok(())
    }

    /// `name =`, if that is what stands here.
    fn argument_name(&mut self) -> Option<(&'a str, Range<usize>)> {
        let start = self.at;
        let found = self.name();
        if found.is_some() && self.take('=') {
            return found;
        }
        self.at = start;
        None
    }

    fn value(&mut self) -> Parsed<(Value, Range<usize>)> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some('"' | '\'') => self.quoted(),
            Some('-' | '0'..='9') => {
                let digits =
                    |from: usize| from + self.text[from..].bytes().take_while(u8::is_ascii_digit).count();
                let whole = digits(start + 1);
                self.at = if self.text[whole..].starts_with('.') { digits(whole + 1) } else { whole };
                if let Some(power) = self.text[self.at..].strip_prefix(['e', 'E']) {
                    let sign = usize::from(power.starts_with(['-', '+']));
                    self.at = digits(self.at + 1 + sign);
                }
                let span = start..self.at;
                let text = &self.text[span.clone()];
                if self.at > whole {
                    let real = text.parse().ok().and_then(Real::new).map(Value::Real);
                    let wrong = || self.error(span.clone(), format!("`{text}` is not a number"), None);
                    return real.map(|value| (value, span.clone())).ok_or_else(wrong);
                }
                match text.parse() {
                    Ok(number) => Ok((Value::Int(number), span)),
                    Err(_) if text == "-" => Err(self.error(span, "found `-` without a number", None)),
                    Err(_) => Err(self.error(span, format!("{text} is too large a number"), None)),
                }
            }
            _ => match self.name() {
                Some(("true", span)) => Ok((Value::Flag(true), span)),
                Some(("false", span)) => Ok((Value::Flag(false), span)),
                Some((word, span)) => Ok((Value::Text(word.to_string()), span)),
                None => Err(self.unexpected("a number, true, false, a word or text in quotes")),
            },
        }
    }

    fn quoted(&mut self) -> Parsed<(Value, Range<usize>)> {
        let start = self.at;
        let mut rest = self.text[start..].char_indices();
        let quote = rest.next().map(|(_, quote)| quote);
        let mut text = String::new();
        while let Some((i, c)) = rest.next() {
            if Some(c) == quote {
                self.at = start + i + c.len_utf8();
                return Ok((Value::Text(text), start..self.at));
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            match rest.next() {
                Some((_, escaped @ ('"' | '\'' | '\\'))) => text.push(escaped),
                Some((j, other)) => {
                    let span = start + i..start + j + other.len_utf8();
                    let help = Some("write `\\\\` for a backslash".to_string());
                    return Err(self.error(span, "unknown escape in the text", help));
                }
                None => break,
            }
        }
        Err(self.error(start..self.text.len(), "the text in quotes does not end", None))
    }

    fn unknown(&self, name: &str, span: Range<usize>) -> SyntaxError {
        let lower = name.to_lowercase().replace('_', "-");
        let entries = entries();
        let synonym = ALSO_CALLED.iter().find(|(called, _)| *called == lower).map(|&(_, name)| name);
        let near = |far: usize, spelling: &str| far <= 1 + spelling.len() / 3;
        let built_in = synonym
            .or_else(|| nearest(&lower, entries.iter().map(|entry| (entry.name(), entry.name())), near));
        // A published scan by its whole name, or by what stands after the slash.
        let whole = lower.contains('/');
        let names =
            published::names().map(|name| (name, if whole { name } else { published::pattern_of(name) }));
        let of_paper =
            nearest(
                &lower,
                names,
                |far, spelling| if whole { near(far, spelling) } else { far < 2 && lower.len() > 3 },
            );
        let likely: Vec<String> = built_in
            .into_iter()
            .chain(of_paper)
            .map(|name| format!("`{}`", published::example(name)))
            .collect();
        let mut help = Vec::new();
        let ending =
            [".json", ".npy", ".safetensors"].into_iter().find(|end| self.text[span.end..].starts_with(end));
        if let Some(ending) = ending {
            help.push(format!("a file of indices within a pattern is written `file(\"{name}{ending}\")`."));
        } else if !likely.is_empty() {
            help.push(format!("did you mean {}?", likely.join(" or ")));
        }
        let system: Vec<String> = published::names_of(lower.split('/').next().unwrap_or_default()).collect();
        if !system.is_empty() {
            help.push(format!("published: {}", system.join(", ")));
        } else {
            let of_kind = |kind: Kind| -> String {
                entries.iter().filter(|e| e.kind() == kind).map(Entry::name).collect::<Vec<_>>().join(", ")
            };
            help.push(format!(
                "known: {}; modifiers {}; sets {}; and published scans such as `vmamba/cross2d`",
                of_kind(Kind::Curve),
                of_kind(Kind::Modifier),
                of_kind(Kind::Set)
            ));
        }
        self.error(span, format!("there is no pattern named `{name}`"), Some(help.join(" ")))
    }
}

/// The name whose spelling is nearest to `text`, if `near` finds its distance small; `names` are pairs of a name and that
/// spelling.
fn nearest<'n>(
    text: &str,
    names: impl Iterator<Item = (&'n str, &'n str)>,
    near: impl Fn(usize, &str) -> bool,
) -> Option<&'n str> {
    let far = |spelling: &str| strsim::osa_distance(text, &spelling.to_lowercase().replace('_', "-"));
    let likely = |spelling: &str| (far(spelling), -(strsim::jaro_winkler(text, spelling) * 1e3) as i64);
    let (name, spelling) = names.min_by_key(|(_, spelling)| likely(spelling))?;
    near(far(spelling), spelling).then_some(name)
}
