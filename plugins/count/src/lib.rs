//! Numbers the records of each key: 1, 2, 3 and so on, in a header. Whoever reads them sees at once whether one is missing, or came twice.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `header` | `count` | the name of the header, which takes the place of one that is there |
//!
//! It keeps the number of each key, so it runs on derived topics: `--into TOPIC --state-bytes BYTES`.

use millpond_guest::{Output, Params, Record, Transform, state, transform};

/// The transform, with the name of its header.
pub struct Count(String);

impl Transform for Count {
    fn new(params: &Params) -> Result<Count, String> {
        params.with_defaults([("header", "count")]).map(|[header]| Count(header))
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        let key = record.key().unwrap_or_default();
        let count = state::get_u64(key) + 1;
        state::put_u64(key, count)?;
        let text = count.to_string();
        let others = record.headers().filter(|(name, _)| *name != self.0);
        let headers: Vec<_> = others.chain([(self.0.as_str(), Some(text.as_bytes()))]).collect();
        out.emit(&record.change().with_headers(&headers));
        Ok(())
    }
}

transform!(Count);

#[cfg(test)]
mod tests {
    use super::Count;
    use millpond_guest::testing::{Batch, transform};

    #[test]
    fn each_key_is_numbered_from_batch_to_batch() {
        let one = Batch::new().record(Some(b"a"), Some(b"x"), &[]).record(Some(b"b"), None, &[]).record(Some(b"a"), None, &[]);
        let again = Batch::new().record(Some(b"a"), Some(b"y"), &[("count", Some(b"old")), ("trace", None)]).record(None, None, &[]);
        let run = |batch| {
            let stored = transform::<Count>(&[], batch).expect("it runs");
            let count = |headers: &[(String, Option<Vec<u8>>)]| headers.last().and_then(|(_, value)| value.clone()).expect("a count");
            stored.iter().map(|record| String::from_utf8(count(&record.headers)).expect("text")).collect::<Vec<_>>()
        };
        assert_eq!((run(&one), run(&again)), (vec!["1".into(), "1".into(), "2".into()], vec!["3".into(), "1".into()]));
        let stored = transform::<Count>(&[("header", "n")], &again).expect("it runs");
        assert_eq!(stored[0].headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["count", "trace", "n"]);
    }
}
