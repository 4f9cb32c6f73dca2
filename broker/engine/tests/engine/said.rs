//! What the broker has said, in its log, and on which thread.

use parking_lot::Mutex;
use std::{collections::BTreeMap, fmt, sync::Once};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// The fields of one line, its words among them as `message`, and the thread that it came from as `thread`.
pub(crate) type Line = BTreeMap<&'static str, String>;

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// Listens from now on, for all tests: they tell their lines apart by their topics.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Listener).expect("nobody else listens"));
}

/// The warnings about a topic that begin with these words.
pub(crate) fn lines(topic: &str, words: &str) -> Vec<Line> {
    let is_meant = |line: &&Line| line.get("topic").is_some_and(|name| name == topic) && line["message"].starts_with(words);
    LINES.lock().iter().filter(is_meant).cloned().collect()
}

/// The warnings that begin with these words, whatever they are about.
pub(crate) fn warnings(words: &str) -> Vec<Line> {
    LINES.lock().iter().filter(|line| line["message"].starts_with(words)).cloned().collect()
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(Line::new());
        event.record(&mut fields);
        fields.0.insert("thread", std::thread::current().name().unwrap_or_default().to_owned());
        LINES.lock().push(fields.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Fields(Line);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}
