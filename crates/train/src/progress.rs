//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two plain lines within a stage.
const PAUSE: Duration = Duration::from_secs(15);

/// Shows how a run gets on.
pub struct Progress {
    kind: Kind,
    stage: Option<Stage>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bars,
    Lines,
    Silent,
}

struct Stage {
    label: String,
    total: u64,
    done: u64,
    line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Bars if standard error is a terminal, else lines.
    pub fn auto() -> Self {
        let kind = if std::io::stderr().is_terminal() { Kind::Bars } else { Kind::Lines };
        Progress { kind, stage: None }
    }

    /// Says nothing.
    pub fn silent() -> Self {
        Progress { kind: Kind::Silent, stage: None }
    }

    /// One line, above the bar if there is one.
    pub fn note(&self, text: impl AsRef<str>) {
        match (self.kind, self.stage.as_ref().and_then(|stage| stage.bar.as_ref())) {
            (Kind::Silent, _) => {}
            (_, Some(bar)) => bar.suspend(|| print(text.as_ref())),
            _ => print(text.as_ref()),
        }
    }

    /// Begins a stage of `total` examples, of which `done` were done before.
    pub fn begin(&mut self, label: String, total: u64, done: u64) {
        self.end();
        let bar = (self.kind == Kind::Bars).then(|| {
            let template = "{prefix} [{bar:30}] {pos}/{len} {msg}";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ");
            let bar =
                ProgressBar::new(total).with_style(style).with_prefix(label.clone()).with_position(done);
            bar.reset_eta();
            bar
        });
        self.stage = Some(Stage { label, total, done, line: Instant::now(), bar });
    }

    /// `examples` more are done; `message` says how it goes.
    pub fn advance(&mut self, examples: u64, message: impl FnOnce() -> String) {
        let (kind, Some(stage)) = (self.kind, self.stage.as_mut()) else { return };
        stage.done += examples;
        match &stage.bar {
            Some(bar) => {
                bar.set_message(message());
                bar.set_position(stage.done);
            }
            None if kind == Kind::Lines && stage.line.elapsed() > PAUSE && stage.done < stage.total => {
                stage.line = Instant::now();
                let share = 100.0 * stage.done as f64 / stage.total.max(1) as f64;
                let line = format!("{}  {share:3.0}%  {}", stage.label, message());
                print(&line);
            }
            None => {}
        }
    }

    /// Ends the stage and takes its bar away.
    pub fn end(&mut self) {
        if let Some(bar) = self.stage.take().and_then(|stage| stage.bar) {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn print(line: &str) {
    // Nothing can be done if standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// "1 run", "3 runs", "2 classes".
pub fn count<N: std::fmt::Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    let end = match (number == N::from(1), what.ends_with('s')) {
        (true, _) => "",
        (false, true) => "es",
        (false, false) => "s",
    };
    format!("{number} {what}{end}")
}

/// A span of time as people say it: "42 s", "3 min 10 s", "2 h 5 min".
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}
