//! What a guest writes to the log, and what is left out of it.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use millpond_plugin::{GuestLine, LOG_LINE_BYTES_MAX, Limits, LogSink, PluginError, Transform};
use millpond_protocol::message::LogLevel;
use tracing::subscriber::with_default;

use crate::support::{Guest, KEEP, batch, host, limits};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What guests log meanwhile.
fn recorded<R>(work: impl FnOnce() -> R) -> (Vec<String>, R) {
    recorded_at(tracing::Level::DEBUG, work)
}

fn recorded_at<R>(level: tracing::Level, work: impl FnOnce() -> R) -> (Vec<String>, R) {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(level).with_ansi(false).without_time().with_writer(move || writer.clone()).finish();
    let result = with_default(subscriber, work);
    let bytes = std::mem::take(&mut *lines.0.lock().unwrap_or_else(PoisonError::into_inner));
    let text = String::from_utf8(bytes).expect("text");
    (text.lines().filter(|line| line.contains("millpond::guest")).map(str::to_owned).collect(), result)
}

/// What is logged while a guest handles one batch.
fn logged(guest: &Guest<'_>, limits: &Limits) -> (Vec<String>, Result<Vec<u8>, PluginError>) {
    recorded(|| {
        let host = host();
        let module = host.load(&guest.transform())?.named("pump-filter");
        Transform::new(&host, &module, limits.clone(), &[])?.run(&batch(1), b"record")
    })
}

const TEXT: &str = r#"(data (i32.const 2048) "too hot\nERROR forged")"#;

#[test]
fn a_line_has_its_level_its_module_and_its_topic() {
    let run = ["0", "1", "2", "3"].map(|level| format!("(call $log (i32.const {level}) (i32.const 2048) (i32.const 7))")).concat();
    let (lines, result) = logged(&Guest { run: &format!("{run}{KEEP}"), items: TEXT, ..Guest::default() }, &limits());
    assert_eq!(result, Ok(b"record".to_vec()));
    assert_eq!(lines.len(), 4, "{lines:?}");
    for (line, level) in lines.iter().zip(["DEBUG", "INFO", "WARN", "ERROR"]) {
        for word in [level, "millpond::guest", "too hot", "pump-filter", "sensors", "partition=3"] {
            assert!(line.contains(word), "{word} is not in {line}");
        }
    }
}

#[test]
fn a_guest_can_not_forge_a_line() {
    let run = format!("(call $log (i32.const 1) (i32.const 2048) (i32.const 20)){KEEP}");
    let (lines, _) = logged(&Guest { run: &run, items: TEXT, ..Guest::default() }, &limits());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("too hot ERROR forged"), "{lines:?}");
}

/// A guest that writes so many lines of so many bytes.
fn flood(lines: u32, bytes: usize) -> String {
    format!(
        "(local $n i32) (memory.fill (i32.const 16384) (i32.const 120) (i32.const {bytes}))
         (loop $l (call $log (i32.const 1) (i32.const 16384) (i32.const {bytes}))
             (local.set $n (i32.add (local.get $n) (i32.const 1)))
             (br_if $l (i32.lt_u (local.get $n) (i32.const {lines})))) {KEEP}"
    )
}

#[test]
fn lines_fit_into_the_limit_and_the_rest_is_counted() {
    let limits = Limits { log_bytes_per_call: 1000, ..limits() };
    let (lines, _) = logged(&Guest { run: &flood(10, 100), ..Guest::default() }, &limits);
    assert_eq!(lines.len(), 10);
    let (lines, result) = logged(&Guest { run: &flood(5000, 100), ..Guest::default() }, &limits);
    assert_eq!(lines.len(), 11, "ten lines, and one about the others");
    assert!(lines[10].contains("4990 more lines"), "{}", lines[10]);
    assert_eq!(result, Ok(b"record".to_vec()), "to write too much is not an error");
}

#[test]
fn a_module_that_floods_with_many_calls_is_held_to_a_rate_by_all_its_attachments_together() {
    let flood = flood(20, 100);
    let guest = Guest { run: &flood, ..Guest::default() };
    let (lines, ()) = recorded(|| {
        let host = host();
        let module = host.load(&guest.transform()).expect("it loads").named("pump-filter");
        let attachments = [(); 2].map(|()| Transform::new(&host, &module, limits(), &[]).expect("it starts"));
        for _ in 0..500 {
            for transform in &attachments {
                assert!(transform.run(&batch(1), b"record").is_ok(), "to write too much is not an error");
            }
        }
    });
    // 20,000 lines of 100 bytes; a burst is 64 KiB, what was gained meanwhile comes on top.
    assert!((200..2000).contains(&lines.len()), "{} lines", lines.len());
    assert!(lines[..200].iter().all(|line| line.contains("xxx")), "a burst is written");
}

#[test]
fn what_was_left_out_over_time_is_said_in_the_next_line() {
    let quiet = Guest { run: "(call $log (i32.const 1) (i32.const 2048) (i32.const 7)) (unreachable)", items: TEXT, ..Guest::default() };
    let flood = flood(3000, 0);
    let loud = Guest { run: &flood, ..Guest::default() };
    let (lines, _) = logged(&loud, &limits());
    assert!(lines.len() < 1000, "empty lines are bounded too: {}", lines.len());
    assert!(logged(&quiet, &limits()).0.iter().all(|line| !line.contains("left out")), "each module has a budget of its own");
    let (lines, ()) = recorded(|| {
        let host = host();
        let module = host.load(&loud.transform()).expect("it loads");
        let transform = Transform::new(&host, &module, limits(), &[]).expect("it starts");
        let begin = std::time::Instant::now();
        // A tenth of a second brings enough for a few lines.
        while begin.elapsed() < std::time::Duration::from_millis(300) {
            transform.run(&batch(1), b"record").expect("it runs");
        }
    });
    let notes: Vec<_> =
        lines.iter().filter(|line| line.contains("lines of this module were left out, over its 8192 bytes a second")).collect();
    assert!(!notes.is_empty() && notes.iter().all(|note| note.contains("WARN")), "{notes:?}");
}

#[test]
fn lines_that_the_log_does_not_have_cost_nothing() {
    let run = format!(
        "(local $n i32) (loop $l (call $log (i32.const 0) (i32.const 2048) (i32.const 7))
             (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $l (i32.lt_u (local.get $n) (i32.const 5000))))
         (call $log (i32.const 2) (i32.const 2048) (i32.const 7)) {KEEP}"
    );
    let guest = Guest { run: &run, items: TEXT, ..Guest::default() };
    let (lines, _) = recorded_at(tracing::Level::INFO, || guest.start(&host(), &limits())?.run(&batch(1), b"record"));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("too hot"), "{lines:?}");
}

#[test]
fn a_long_line_is_cut() {
    let limits = Limits { log_bytes_per_call: 100_000, ..limits() };
    let (lines, _) = logged(&Guest { run: &flood(1, 50_000), ..Guest::default() }, &limits);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(&format!("{}…", "x".repeat(LOG_LINE_BYTES_MAX))), "{}", lines[0].len());
    assert!(!lines[0].contains(&"x".repeat(LOG_LINE_BYTES_MAX + 1)));
}

#[test]
fn a_line_outside_the_memory_or_not_utf_8_ends_the_guest() {
    for (address, length) in [("131072", "1"), ("-1", "5"), ("0", "-1")] {
        let run = format!("(call $log (i32.const 1) (i32.const {address}) (i32.const {length})) {KEEP}");
        let (_, result) = logged(&Guest { run: &run, ..Guest::default() }, &limits());
        assert!(matches!(&result, Err(PluginError::OutputInvalid { reason }) if reason.contains("out of bounds")), "{result:?}");
    }
    let run = format!("(i32.store8 (i32.const 2048) (i32.const 255)) (call $log (i32.const 1) (i32.const 2048) (i32.const 1)) {KEEP}");
    let (_, result) = logged(&Guest { run: &run, ..Guest::default() }, &limits());
    assert!(matches!(&result, Err(PluginError::OutputInvalid { reason }) if reason.contains("utf-8")), "{result:?}");
    let run = format!("(call $log (i32.const 9) (i32.const 2048) (i32.const 1)) {KEEP}");
    let (_, result) = logged(&Guest { run: &run, ..Guest::default() }, &limits());
    assert!(result.is_err(), "there is no level 9");
}

#[test]
fn the_last_error_that_was_logged_explains_a_trap() {
    let run = "(call $log (i32.const 3) (i32.const 2048) (i32.const 7)) unreachable";
    let (_, result) = logged(&Guest { run, items: TEXT, ..Guest::default() }, &Limits { log_bytes_per_call: 0, ..limits() });
    assert!(matches!(&result, Err(PluginError::Trapped { reason, .. }) if reason.ends_with("its last error: too hot")), "{result:?}");
}

/// Keeps what it gets.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<(LogLevel, Option<u32>, String)>>);

impl LogSink for Kept {
    fn write(&self, line: GuestLine<'_>) {
        let GuestLine { level, partition, message } = line;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((level, partition, message.to_owned()));
    }
}

impl Kept {
    fn take(&self) -> Vec<(LogLevel, Option<u32>, String)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a sink gets while a guest starts and handles some batches, and how many lines the broker's log gets at this level.
fn kept(guest: &Guest<'_>, limits: Limits, calls: usize, level: tracing::Level) -> (Vec<(LogLevel, Option<u32>, String)>, usize) {
    let sink = Arc::new(Kept::default());
    let (lines, ()) = recorded_at(level, || {
        let host = host();
        let module = host.load(&guest.transform()).expect("it loads").logging_to(Arc::clone(&sink) as _);
        let transform = Transform::new(&host, &module, limits, &[]).expect("it starts");
        for _ in 0..calls {
            assert!(transform.run(&batch(1), b"record").is_ok());
        }
    });
    (sink.take(), lines.len())
}

#[test]
fn a_sink_gets_every_level_whatever_the_log_shows_and_no_line_that_is_forged() {
    let run = ["0", "1", "2", "3"].map(|level| format!("(call $log (i32.const {level}) (i32.const 2048) (i32.const 20))")).concat();
    let init = "(call $log (i32.const 1) (i32.const 2048) (i32.const 7)) (i32.const 1024)";
    let guest = Guest { run: &format!("{run}{KEEP}"), items: TEXT, init, ..Guest::default() };
    let (kept, logged) = kept(&guest, limits(), 1, tracing::Level::ERROR);
    assert_eq!(logged, 1);
    assert_eq!(kept[0], (LogLevel::Info, None, "too hot".to_owned()), "from its start");
    let expected = LogLevel::ALL.map(|level| (level, Some(3), "too hot ERROR forged".to_owned()));
    assert_eq!(kept[1..], expected);
}

#[test]
fn what_a_sink_gets_is_held_to_the_limits_and_what_the_log_does_not_show_takes_nothing_from_it() {
    // Five thousand lines of `debug`, and one to be seen.
    let run = format!(
        "(local $n i32) (loop $l (call $log (i32.const 0) (i32.const 2048) (i32.const 7))
             (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $l (i32.lt_u (local.get $n) (i32.const 5000))))
         (call $log (i32.const 2) (i32.const 2048) (i32.const 7)) {KEEP}"
    );
    let guest = Guest { run: &run, items: TEXT, ..Guest::default() };
    let (lines, logged) = kept(&guest, Limits { log_bytes_per_call: 70, ..limits() }, 20, tracing::Level::INFO);
    assert_eq!(logged, 20, "the one of each call");
    assert_eq!(lines.len(), 20 * 11, "ten lines of each call, and one about the others");
    assert!(lines[10].0 == LogLevel::Warn && lines[10].2.contains("4991 more lines"), "{:?}", lines[10]);
    let (lines, _) = kept(&guest, limits(), 100, tracing::Level::INFO);
    assert!(lines.len() < 2_000, "500,000 lines come to {}", lines.len());
}

#[test]
fn the_words_of_a_guest_in_an_error_have_no_control_characters() {
    let items = r#"(data (i32.const 2048) "bad\1b[2J\nERROR") (func $"two\nlines \1b" unreachable)"#;
    let run = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 2048))
        (i32.store (i32.const 1032) (i32.const 13)) (i32.const 1024)";
    let error = Guest { items, run, ..Guest::default() }.run(&host(), &limits()).expect_err("its error");
    assert!(matches!(&error, PluginError::Guest { message, .. } if message == "bad [2J ERROR"), "{error:?}");
    let trap = Guest { items, run: "(call $\"two\\nlines \\1b\") (i32.const 0)", ..Guest::default() };
    let error = trap.run(&host(), &limits()).expect_err("a trap");
    let backtrace = error.backtrace().expect("it has one");
    assert!(backtrace.contains("lines") && backtrace.chars().all(|c| c == '\n' || !c.is_control()), "{backtrace:?}");
}
