//! Output: the log of a run on stderr, and one document on stdout. The only place that prints; each line passes the
//! redactor.

mod access_table;
mod sarif;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    convert::Infallible,
    fmt::Display,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use access_table::access_table;

use crate::{
    budget::Budget,
    credential::access_checks::Proof,
    diagnostics::{
        error::{Code, Failure},
        finding::{self, Finding, Position, Severity},
        secret::{Redactor, Token},
        text::{single_line, summarize_fields},
    },
    env::{self, Environment},
    k8s::object::Reference,
    net::{
        backoff::{Observer, Pausing},
        retry::Transient,
    },
    plan::{
        access_matrix::Access,
        diff::{self, Change},
        guardrails::WaiverFacts,
    },
    rbac::{self, PermissionChanges, PermissionRecord},
};

/// The output of a run.
pub(crate) struct Report {
    redactor: Redactor,
    log: RefCell<Box<dyn Write>>,
    out: RefCell<Box<dyn Write>>,
    started: Instant,
    budget: RefCell<Option<Budget>>,
    document: RefCell<Document>,
    written: RefCell<Vec<String>>,
    pausing: Cell<usize>,
    spoke: Cell<bool>,
    shows_sources: Cell<bool>,
    style: LogStyle,
    waits: RefCell<Vec<(u32, String, Instant)>>,
    drawn: Cell<bool>,
}

/// The style of the log: both options only on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogStyle {
    /// With colours.
    colour: bool,
    /// With a last line that shows what the program is waiting for.
    pub(crate) progress: bool,
}

impl LogStyle {
    /// The style of a log on a terminal, or elsewhere.
    pub(crate) fn new(environment: &Environment, terminal: bool) -> Self {
        let able = terminal && environment.get(env::TERM).is_some_and(|kind| kind != "dumb");
        Self { colour: able && environment.get(env::NO_COLOR).is_none(), progress: able }
    }
}

/// A wait that is shown on a terminal until this is dropped.
pub(crate) struct Waiting<'a> {
    report: &'a Report,
    number: u32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.report.waits.borrow_mut().retain(|(number, ..)| *number != self.number);
        self.report.wipe();
    }
}

/// The document of `--json`: every key is always present; what does not apply is null or empty.
#[derive(Default, Serialize)]
struct Document {
    version: u32,
    action: Option<&'static str>,
    outcome: &'static str,
    name: Option<String>,
    namespace: Option<String>,
    server: Option<String>,
    server_version: Option<String>,
    changes: Vec<Change>,
    permissions: PermissionChanges,
    findings: Vec<Finding>,
    missing_permissions: Vec<PermissionRecord>,
    waivers: Vec<WaiverFacts>,
    proof: Option<Proof>,
    access: Vec<Access>,
    token: Option<TokenFacts>,
    error: Option<ErrorFacts>,
    requests: u32,
    duration_ms: u64,
}

/// The printable facts of a token.
#[derive(Clone, Serialize)]
pub(crate) struct TokenFacts {
    /// SHA-256 of its bytes.
    pub(crate) fingerprint: String,
    /// The Secret that contains it, if known.
    pub(crate) secret: Option<String>,
    /// The uid of that Secret, if known.
    pub(crate) secret_uid: Option<String>,
    /// When it expires; null if never.
    pub(crate) expires: Option<String>,
}

#[derive(Serialize)]
struct ErrorFacts {
    code: &'static str,
    exit: u8,
    doing: String,
    object: Option<String>,
    cause: String,
    state: String,
    next: String,
}

impl Report {
    /// A report that prints to these two.
    pub(crate) fn new(out: Box<dyn Write>, log: Box<dyn Write>, style: LogStyle) -> Self {
        Self {
            redactor: Redactor::default(),
            log: RefCell::new(log),
            out: RefCell::new(out),
            started: Instant::now(),
            budget: RefCell::default(),
            document: RefCell::new(Document { version: 1, ..Document::default() }),
            written: RefCell::default(),
            pausing: Cell::default(),
            spoke: Cell::default(),
            shows_sources: Cell::default(),
            style,
            waits: RefCell::default(),
            drawn: Cell::default(),
        }
    }

    /// The redactor of this run; its clones share the registered secrets.
    pub(crate) fn redactor(&self) -> Redactor {
        self.redactor.clone()
    }

    /// Shows on a terminal what the program waits for, until the result is dropped.
    #[must_use]
    pub(crate) fn waiting(&self, what: &str) -> Waiting<'_> {
        let mut waits = self.waits.borrow_mut();
        let number = waits.last().map_or(0, |(number, ..)| number + 1);
        waits.push((number, what.to_owned(), Instant::now()));
        Waiting { report: self, number }
    }

    /// Updates the last line of a terminal, for as long as it is polled.
    pub(crate) async fn progress(&self) -> Infallible {
        if !self.style.progress {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(PROGRESS_INTERVAL).await;
            self.draw();
        }
    }

    /// Prints one line that the next one overwrites. Short waits are not shown.
    fn draw(&self) {
        let waits = self.waits.borrow();
        let Some((_, what, since)) = waits.last() else { return };
        let waited = since.elapsed();
        if waited >= PROGRESS_DELAY {
            let text = format!("{:<12} {what}, {} s", "...", waited.as_secs());
            let line: String = self.redactor.redact(&text).chars().take(NARROW).collect();
            let mut log = self.log.borrow_mut();
            let _ = write!(log, "\r\x1b[K{line}").and_then(|()| log.flush());
            self.drawn.set(true);
        }
    }

    /// Erases that line.
    fn wipe(&self) {
        if self.drawn.replace(false) {
            let mut log = self.log.borrow_mut();
            let _ = write!(log, "\r\x1b[K").and_then(|()| log.flush());
        }
    }

    /// Registers a token to be redacted in all output.
    pub(crate) fn register(&self, token: &Token) {
        self.redactor.register(token);
    }

    /// Prints the first line of a run.
    pub(crate) fn begin(&self, action: &'static str) {
        self.document.borrow_mut().action = Some(action);
        self.step(action, concat!("k8s-token ", env!("CARGO_PKG_VERSION")), None);
    }

    /// Records the cluster, and the budget that counts requests.
    pub(crate) fn server(&self, server: &str, budget: &Budget) {
        self.document.borrow_mut().server = Some(server.to_owned());
        *self.budget.borrow_mut() = Some(budget.clone());
    }

    /// Prints and records the instance, as far as it is known.
    pub(crate) fn instance(&self, name: Option<&str>, namespace: &str) {
        let mut document = self.document.borrow_mut();
        document.name = name.map(str::to_owned);
        document.namespace = Some(namespace.to_owned());
        drop(document);
        match name {
            Some(name) => self.step("instance", &format!("{name} in namespace {namespace}"), None),
            None => self.step("namespace", namespace, None),
        }
    }

    /// Prints one line of the log: what was done, to what, and how long the server took.
    pub(crate) fn step(&self, verb: &str, what: &str, took: Option<Duration>) {
        let text = match took {
            Some(took) => format!("{verb:<12} {what:<72} {:>6} ms", took.as_millis()),
            None => format!("{verb:<12} {what}"),
        };
        match colour(verb).filter(|_| self.style.colour) {
            // Colours are added after redaction, which needs each word whole.
            Some(colour) => self.line_with(&text, |line| match line.strip_prefix(verb) {
                Some(rest) => format!("\x1b[{colour}m{verb}\x1b[0m{rest}"),
                None => line,
            }),
            None => self.line(&text),
        }
    }

    /// Prints one line of the log that begins with a place in a file.
    fn located(&self, place: &str, word: &str, text: &str) {
        let colour = colour(word).filter(|_| self.style.colour);
        self.line_with(&format!("{place}{word} {text}"), |line| {
            match (colour, line.strip_prefix(place).and_then(|rest| rest.strip_prefix(word))) {
                (Some(colour), Some(rest)) => format!("{place}\x1b[{colour}m{word}\x1b[0m{rest}"),
                _ => line,
            }
        });
    }

    /// Records the server's version.
    pub(crate) fn server_version(&self, version: Option<String>) {
        self.document.borrow_mut().server_version = version;
    }

    /// Prints and records a change of an object; `took` is none in a plan.
    pub(crate) fn change(&self, change: &Change, took: Option<Duration>) {
        let changes = &mut self.document.borrow_mut().changes;
        match changes.iter_mut().find(|known| known.reference == change.reference) {
            // In a run that started over, earlier changes count and were printed.
            Some(_) if change.action == diff::ChangeKind::Unchanged => return,
            Some(known) => *known = change.clone(),
            None => changes.push(change.clone()),
        }
        let fields = match change.fields.as_slice() {
            [] => String::new(),
            fields => format!("  {}", summarize_fields(fields)),
        };
        self.step(change.action.as_str(), &format!("{}{fields}", change.reference), took);
    }

    /// Records a successful write, for the `state` line of a later failure.
    pub(crate) fn wrote(&self, action: diff::ChangeKind, reference: &Reference) {
        self.written.borrow_mut().push(format!("{} of {reference}", action.as_str()));
    }

    /// Prints and records the permissions that are added and removed.
    pub(crate) fn permissions(&self, permissions: PermissionChanges) {
        self.list("widened", &permissions.widened);
        self.list("narrowed", &permissions.narrowed);
        self.document.borrow_mut().permissions = permissions;
    }

    /// Prints and records a finding about the input or the cluster.
    pub(crate) fn finding(&self, finding: Finding) {
        let source = finding.source.as_deref().filter(|_| self.shows_sources.get());
        let at = finding.pointer.as_deref().filter(|pointer| !pointer.is_empty());
        let at: Vec<&str> = source.into_iter().chain(at).collect();
        let at = if at.is_empty() { String::new() } else { format!("{}: ", at.join(" ")) };
        let text = format!("{at}{} [{}]", finding.message, finding.code.as_str());
        match (&finding.source, finding.position) {
            // Editors and terminals open a file at such a place.
            (Some(source), Some(Position { line, column })) => {
                self.located(&format!("{source}:{line}:{column} "), finding.severity.as_str(), &text);
            }
            _ => self.step(finding.severity.as_str(), &text, None),
        }
        if let Some(help) = &finding.help {
            self.step("", help, None);
        }
        self.document.borrow_mut().findings.push(finding);
    }

    /// Whether the log shows the source of each finding, because there are several.
    pub(crate) fn show_sources(&self, shows: bool) {
        self.shows_sources.set(shows);
    }

    /// Prints a finding, unless the same one was printed before.
    pub(crate) fn finding_once(&self, finding: Finding) {
        if !self.document.borrow().findings.contains(&finding) {
            self.finding(finding);
        }
    }

    /// Records the waivers of guardrails, and prints those that accept a risk; the same ones once.
    pub(crate) fn waivers(&self, waivers: Vec<WaiverFacts>) {
        if self.document.borrow().waivers == waivers {
            return;
        }
        for WaiverFacts { code, max_severity, reason, until, .. } in waivers.iter().filter(|waiver| waiver.used) {
            self.step("accepted", &format!("{code} up to {} until {until}: {reason}", max_severity.as_str()), None);
        }
        self.document.borrow_mut().waivers = waivers;
    }

    /// Records what is allowed, and prints it on stdout as a table; `home` is the namespace that comes first, and the rules of
    /// the `unknown` ClusterRoles are not known.
    pub(crate) fn access(&self, cells: Vec<Access>, home: &str, unknown: &[String], as_table: bool) {
        if as_table {
            self.text(&access_table(&cells, home, unknown), true);
        }
        self.document.borrow_mut().access = cells;
    }

    /// Records the result of the test of the credential.
    pub(crate) fn proof(&self, proof: Proof) {
        self.document.borrow_mut().proof = Some(proof);
    }

    /// Prints the permissions of a credential that is tested without params.
    pub(crate) fn allowed(&self, records: &[PermissionRecord]) {
        self.list("may", records);
    }

    /// Records the facts of the token.
    pub(crate) fn token(&self, facts: TokenFacts) {
        self.document.borrow_mut().token = Some(facts);
    }

    /// Prints and records a failure; its `state` follows from the successful writes.
    pub(crate) fn failure(&self, failure: Failure) {
        let state = failure.state.unwrap_or_else(|| match self.written.borrow().as_slice() {
            [] => NOTHING_CHANGED.to_owned(),
            done => {
                let (first, more) = done.split_at(done.len().min(LISTED));
                let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
                format!("done so far: {}{more}; running again continues from there", first.join(", "))
            }
        });
        let state = if failure.outcome_unknown {
            format!("{state}; a request got no answer and may have succeeded; running again will check")
        } else {
            state
        };
        for finding in failure.findings {
            if finding.message == failure.cause {
                self.document.borrow_mut().findings.push(finding); // printed as the cause below
            } else {
                self.finding(finding);
            }
        }
        if self.spoke.get() {
            self.line("");
        }
        self.step("failed", &format!("{} (exit {})", failure.code.as_str(), failure.code.exit() as u8), None);
        let at = |object: &str| if object.contains("://") { format!(" at {object}") } else { format!(" {object}") };
        let object = failure.object.as_deref().map(at).unwrap_or_default();
        self.step("  doing", &format!("{}{object}", failure.doing), None);
        self.step("  cause", &failure.cause, None);
        self.list("  missing", &failure.missing);
        self.step("  state", &state, None);
        self.step("  next", &failure.next, None);
        let mut document = self.document.borrow_mut();
        document.missing_permissions = failure.missing;
        document.error = Some(ErrorFacts {
            code: failure.code.as_str(),
            exit: failure.code.exit() as u8,
            doing: failure.doing,
            object: failure.object,
            cause: failure.cause,
            state,
            next: failure.next,
        });
    }

    /// Records a wrong command line, whose text was printed already.
    pub(crate) fn usage(&self, action: Option<&'static str>, cause: &str) {
        let mut document = self.document.borrow_mut();
        document.action = action;
        document.error = Some(ErrorFacts {
            code: Code::Usage.as_str(),
            exit: Code::Usage.exit() as u8,
            doing: "reading the command line".to_owned(),
            object: None,
            cause: cause.to_owned(),
            state: NOTHING_CHANGED.to_owned(),
            next: "run k8s-token --help, and correct the command line".to_owned(),
        });
    }

    /// Prints the last line of a plan.
    pub(crate) fn done_planning(&self) {
        self.done(&format!("plan complete: {}", self.planned()));
    }

    /// Prints what was planned before the failure of a plan that shows its changes.
    pub(crate) fn failed_planning(&self) {
        if !self.document.borrow().changes.is_empty() {
            self.step("planned", &self.planned(), None);
        }
    }

    /// The number of changes, and of findings by severity, the worst first.
    fn planned(&self) -> String {
        let document = self.document.borrow();
        let is_change = |change: &&Change| change.action != diff::ChangeKind::Unchanged;
        let changes = match document.changes.iter().filter(is_change).count() {
            0 => "nothing to change".to_owned(),
            1 => "1 change".to_owned(),
            several => format!("{several} changes"),
        };
        let mut numbers: BTreeMap<Severity, usize> = BTreeMap::new();
        for finding in &document.findings {
            *numbers.entry(finding.severity).or_default() += 1;
        }
        let noun = if document.findings.len() == 1 { "finding" } else { "findings" };
        let numbers: Vec<String> =
            numbers.iter().rev().map(|(severity, number)| format!("{number} {}", severity.as_str())).collect();
        match numbers.as_slice() {
            [] => changes,
            numbers => format!("{changes}; {} {noun}", numbers.join(", ")),
        }
    }

    /// Prints the last line of the log.
    pub(crate) fn done(&self, what: &str) {
        let requests = self.budget.borrow().as_ref().map_or(0, Budget::requests);
        let milliseconds = self.started.elapsed().as_millis();
        self.step("done", &format!("{what} ({milliseconds} ms, {requests} requests)"), None);
    }

    /// Prints the document of `--json`.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn document(&self) -> std::io::Result<()> {
        let mut document = self.document.borrow_mut();
        let home = document.namespace.clone().unwrap_or_default();
        document.changes.sort_by(|one, other| one.reading_order(&home).cmp(&other.reading_order(&home)));
        document.outcome = if document.error.is_some() { "failed" } else { "ok" };
        document.requests = self.budget.borrow().as_ref().map_or(0, Budget::requests);
        document.duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut document = serde_json::to_value(&*document)?;
        self.redactor.redact_document(&mut document);
        writeln!(self.out.borrow_mut(), "{document:#}")
    }

    /// Prints the findings in SARIF. File names in it are relative to the working directory where that contains them.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn sarif(&self, working_directory: &Path) -> std::io::Result<()> {
        let mut document =
            sarif::document(&self.document.borrow().findings, working_directory, |text| self.redactor.redact(text));
        self.redactor.redact_document(&mut document);
        writeln!(self.out.borrow_mut(), "{document:#}")
    }

    /// Prints a credential file or a kubeconfig on stdout: output that contains a token on purpose, and is not
    /// redacted.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn write_stdout(&self, text: &str) -> std::io::Result<()> {
        let mut out = self.out.borrow_mut();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Prints the help or a usage error, which may quote an argument.
    pub(crate) fn text(&self, text: &str, to_stdout: bool) {
        let stream = if to_stdout { &self.out } else { &self.log };
        let text: String = self.redactor.redact(text).lines().map(|line| single_line(line) + "\n").collect();
        let _ = stream.borrow_mut().write_all(text.as_bytes());
    }

    /// Prints permissions; those that differ only in the verb share a line.
    fn list(&self, word: &str, records: &[PermissionRecord]) {
        let lines = rbac::summarize(records);
        for line in lines.iter().take(LISTED) {
            self.step(word, line, None);
        }
        if lines.len() > LISTED {
            self.step(word, &format!("and {} more lines; --json has all of them", lines.len() - LISTED), None);
        }
    }

    fn line(&self, text: &str) {
        self.line_with(text, |line| line);
    }

    fn line_with(&self, text: &str, finish: impl FnOnce(String) -> String) {
        self.spoke.set(true);
        self.wipe();
        let line = finish(single_line(&self.redactor.redact(text)).trim_end().to_owned());
        // A closed stderr must not stop a run half-way through a change.
        let _ = writeln!(self.log.borrow_mut(), "{line}");
    }
}

/// The colour of a line's first word: problems, removals, additions, success.
fn colour(verb: &str) -> Option<&'static str> {
    match verb {
        "failed" | "critical" | "high" => Some("31"),
        "medium" | "delete" | "replace" | "narrowed" => Some("33"),
        "create" | "update" | "adopt" | "widened" => Some("36"),
        "prove" | "done" => Some("32"),
        _ => None,
    }
}

/// The state after a run without a write.
const NOTHING_CHANGED: &str = "nothing was changed";
/// The interval of updates of the last line.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// The time after which a wait is shown.
const PROGRESS_DELAY: Duration = Duration::from_millis(500);
/// The maximum length of that line: a wrapped line cannot be overwritten.
const NARROW: usize = 78;
/// The maximum number of permissions and writes in a list of the log; the document has all of them.
const LISTED: usize = 10;

impl Observer for Report {
    /// If many requests pause at the same time, only the first ones are logged.
    fn retrying<'o>(
        &'o self,
        what: &dyn Display,
        transient: &Transient,
        pause: Duration,
        (next, last): (u8, u8),
    ) -> Box<dyn Pausing + 'o> {
        match self.pausing.get() {
            pausing if pausing < LISTED => {
                let seconds = pause.as_secs_f64();
                let text = format!(
                    "{what}: {}; retrying in {seconds:.1} s (attempt {next} of at most {last})",
                    transient.what
                );
                self.step("retry", &text, None);
            }
            LISTED => self.step("retry", "more requests are retried at the same time", None),
            _ => {}
        }
        self.pausing.set(self.pausing.get() + 1);
        Box::new(Pause(&self.pausing))
    }

    fn warned(&self, text: &str) {
        self.finding_once(Finding::remark(finding::Code::ServerWarning, format!("the server warns: {text}")));
    }

    fn had_succeeded(&self, what: &dyn Display) {
        self.step("", &format!("{what}: the first attempt had succeeded"), None);
    }

    fn redactor(&self) -> Redactor {
        self.redactor.clone()
    }
}

/// A request that pauses before its next attempt.
struct Pause<'a>(&'a Cell<usize>);

impl Pausing for Pause<'_> {}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    /// A log that the test can read.
    #[derive(Clone, Default)]
    struct Log(Rc<RefCell<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn severity_behind_a_file_name_is_coloured() {
        let log = Log::default();
        let style = LogStyle { colour: true, progress: false };
        let report = Report::new(Box::new(std::io::sink()), Box::new(log.clone()), style);
        let mut finding = Finding::blocking(finding::Code::Schema, "/a", "is wrong");
        finding.source = Some("high.json".to_owned());
        report.finding(finding.clone());
        finding.position = Some(Position { line: 3, column: 7 });
        report.finding(finding);
        let lines = [
            "\x1b[31mhigh\x1b[0m         /a: is wrong [schema]",
            "high.json:3:7 \x1b[31mhigh\x1b[0m /a: is wrong [schema]",
        ];
        assert_eq!(String::from_utf8_lossy(&log.0.borrow()), lines.map(|line| format!("{line}\n")).concat());
    }
}
